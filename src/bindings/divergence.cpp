// The Python side of divergences. Arrays come validated, as for the loss, with the classes of a row contiguous.
#include "divergence.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <string>

#include "gil.hpp"
#include "records.hpp"

namespace crossentropy::python {

static double divergence(nb::handle first, nb::handle second, std::optional<double> beta, double softcap_first,
                         double softcap_second, double temperature, const std::string& reduction,
                         nb::handle sample_weight, double gradient_scale, nb::handle grad_output, nb::handle values,
                         nb::handle dfirst, nb::handle dsecond, int num_threads) {
    DivergenceProblem p;
    const HeldLogits a(Record(nb::borrow(first)), p.first), b(Record(nb::borrow(second)), p.second);
    if (p.first.rows != p.second.rows || p.first.classes != p.second.classes || p.first.classes == 0 ||
        p.first.class_stride != 1 || p.second.class_stride != 1)
        throw nb::value_error("expected contiguous rows of the same classes");
    p.rows = p.first.rows;
    p.classes = p.first.classes;
    p.jensen_shannon = beta.has_value();
    p.beta = beta.value_or(0.5);
    p.first.options.softcap = softcap_first;
    p.second.options.softcap = softcap_second;
    p.first.options.temperature = p.second.options.temperature = temperature;
    p.reduction = reduction_of(reduction);
    const Buffer weights(sample_weight, p.rows * sizeof(double)), upstream(grad_output, p.rows * sizeof(double)),
        of_rows(values, p.rows * (p.wide() ? sizeof(double) : sizeof(float)), PyBUF_WRITABLE),
        d_a(dfirst, a.bytes(), PyBUF_WRITABLE), d_b(dsecond, b.bytes(), PyBUF_WRITABLE);
    p.sample_weight = weights.data<double>();
    p.gradient_scale = gradient_scale;
    p.grad_output = upstream.data<double>();
    p.row_values = of_rows.data();
    p.first.matrix = d_a.data();
    p.second.matrix = d_b.data();
    const ReleasedGil released;
    return evaluate_divergence(p, num_threads);
}

void define_divergence(nb::module_& m);
void define_divergence(nb::module_& m) {
    m.def("divergence", &divergence, nb::kw_only(), nb::arg("first"), nb::arg("second"), nb::arg("beta").none(),
          nb::arg("softcap_first"), nb::arg("softcap_second"), nb::arg("temperature"), nb::arg("reduction"),
          nb::arg("sample_weight").none() = nb::none(), nb::arg("gradient_scale") = 1.0,
          nb::arg("grad_output").none() = nb::none(), nb::arg("values").none() = nb::none(),
          nb::arg("dfirst").none() = nb::none(), nb::arg("dsecond").none() = nb::none(), nb::arg("num_threads"),
          "The reduced KL(first || second), for reduction 'none' the sum; with beta the Jensen-Shannon divergence, "
          "beta the weight of the first. Writes each row's value and the gradients where given.");
}

}  // namespace crossentropy::python
