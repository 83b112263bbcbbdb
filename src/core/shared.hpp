// What the coefficients of smoothed index targets share in all rows, computed once a call.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "kernels/compensated.hpp"
#include "problem.hpp"

namespace crossentropy {

class SharedSums {
    std::vector<float> float_;
    std::vector<double> double_, of_block_;

    template <class T>
    void compute(Problem& p, std::vector<T>& of_class) {
        constexpr std::size_t group = kGroupBytes / sizeof(T), block = kBlockBytes / sizeof(T);
        const std::size_t rest = p.classes % group;
        const double share = double(T(p.options.label_smoothing / double(p.classes_of_whole())));
        if (p.class_weight == nullptr) {
            of_class.assign(2 * group, T(0));
            std::fill_n(of_class.begin(), group + rest, T(share));
        } else {
            of_class.assign((p.classes + group - 1) / group * group, T(0));
            for (std::size_t c = 0; c < p.classes; ++c) of_class[c] = T(share * p.class_weight[c]);
        }
        p.shared.of_class = of_class.data();
        p.shared.step = p.class_weight != nullptr;
        baseline::CompensatedSum all;
        for (std::size_t first = 0; first < p.classes; first += block) {
            const std::size_t count = std::min(block, p.classes - first);
            baseline::CompensatedSum sum;
            if (p.class_weight == nullptr)
                sum = {share * double(count)};
            else
                for (std::size_t i = 0; i < count; ++i) sum.add(double(of_class[first + i]));
            of_block_.push_back(sum.total());
            all.add(sum);
        }
        p.shared.of_block = of_block_.data();
        p.shared.sum = all.sum;
        p.shared.sum_error = all.error;
    }

 public:
    explicit SharedSums(Problem& p) {
        if (p.indices == nullptr || p.options.label_smoothing == 0.0 || p.class_stride > 1 || p.extreme_weights ||
            p.has_entropy())
            return;
        if (p.type == ElementType::float64)
            compute(p, double_);
        else
            compute(p, float_);
    }
};

}  // namespace crossentropy
