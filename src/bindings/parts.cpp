// Rows whose classes are split into parts: what each part tells, joined, and what is computed of it.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>

#include <cstddef>

#include "evaluate.hpp"
#include "gil.hpp"
#include "options_in.hpp"
#include "records.hpp"

namespace crossentropy::python {

namespace {

// A problem that has some of the classes of its rows.
struct Part {
    Problem p;
    const HeldLogits logits;
    const HeldTargets targets;
    const HeldWeights weights;
    const int num_threads;

    Part(const Record& call, std::size_t classes, std::size_t first_class, bool entropy)
        : p(problem(call, classes, first_class, entropy)),
          logits(Record(call[names().logits]), p),
          targets(Record(call[names().targets]), p),
          weights(call[names().class_weight], call[names().sample_weight], p),
          num_threads(int(call.size(names().num_threads))) {}

    static Problem problem(const Record& call, std::size_t classes, std::size_t first_class, bool entropy) {
        Problem p;
        p.options = options_in(Record(call[names().options])[names().core]);
        p.options.reduction = Reduction::none;
        p.split.classes = classes;
        p.split.first_class = first_class;
        p.split.entropy = entropy;
        return p;
    }
    void run() {
        Evaluation result;
        {
            const ReleasedGil released;
            result = evaluate(p, num_threads);
        }
        if (result.bad_row != kNoRow) throw nb::index_error(bad_index_message(p, result.bad_row).c_str());
    }
};

void part_of_rows(nb::handle call, std::size_t classes, std::size_t first_class, bool entropy, nb::handle out) {
    Part part(Record(nb::borrow(call)), classes, first_class, entropy);
    const Buffer parts(out, part.p.rows * kPartFields * sizeof(double), PyBUF_WRITABLE);
    part.p.split.parts = parts.data<double>();
    part.run();
}

void join(nb::handle call, bool entropy, nb::handle parts, std::size_t count, nb::handle out) {
    const Record record(nb::borrow(call));
    Problem p = Part::problem(record, 1, 0, entropy);
    const Record logits(record[names().logits]), targets(record[names().targets]);
    p.rows = logits.size(names().rows);
    p.type = logits.type(names().type, kLogitTypes);
    // Where they are is not read, but that they are.
    const std::size_t bytes = p.rows * kPartFields * sizeof(double);
    const Buffer given(parts, count * bytes), whole(out, bytes, PyBUF_WRITABLE),
        probabilities(targets[names().probabilities], 0);
    p.probabilities = probabilities.data();
    const ReleasedGil released;
    join_parts(p, given.data<double>(), count, whole.data<double>());
}

void loss_of_part(nb::handle call, std::size_t classes, std::size_t first_class, nb::handle whole, nb::handle losses,
                  nb::handle entropies, nb::handle dlogits, nb::handle grad_output, nb::handle entropy_grad_output,
                  bool entropy) {
    Part part(Record(nb::borrow(call)), classes, first_class, entropy);
    Problem& p = part.p;
    const std::size_t row_size = kRowSize[int(p.type)];
    const Buffer sums(whole, p.rows * kPartFields * sizeof(double)), g(grad_output, p.rows * sizeof(double)),
        dentropy(entropy_grad_output, p.rows * sizeof(double)), values(losses, p.rows * row_size, PyBUF_WRITABLE),
        entropy_values(entropies, p.rows * row_size, PyBUF_WRITABLE),
        matrix(dlogits, part.logits.bytes(), PyBUF_WRITABLE);
    p.split.whole = sums.data<double>();
    p.grad_output = g.data<double>();
    p.entropy_grad_output = dentropy.data<double>();
    p.row_values = values.data();
    p.entropies = entropy_values.data();
    p.matrix = matrix.data();
    part.run();
}

}  // namespace

void define_parts(nb::module_& m) {
    m.attr("part_fields") = std::size_t(kPartFields);
    m.def("part_of_rows", &part_of_rows, nb::arg("call"), nb::kw_only(), nb::arg("classes"), nb::arg("first_class"),
          nb::arg("entropy"), nb::arg("out"),
          "Writes what the classes of a call tell of each row, (rows, part_fields) of float64. They are some of "
          "`classes`, from first_class on; class indices count all.");
    m.def("join_parts", &join, nb::arg("call"), nb::kw_only(), nb::arg("entropy"), nb::arg("parts"), nb::arg("count"),
          nb::arg("out"), "Joins (count, rows, part_fields) to what all classes tell, in the order given.");
    m.def("loss_of_part", &loss_of_part, nb::arg("call"), nb::kw_only(), nb::arg("classes"), nb::arg("first_class"),
          nb::arg("whole"), nb::arg("losses").none() = nb::none(), nb::arg("entropies").none() = nb::none(),
          nb::arg("dlogits").none() = nb::none(), nb::arg("grad_output").none() = nb::none(),
          nb::arg("entropy_grad_output").none() = nb::none(), nb::arg("entropy") = false,
          "Writes the losses of rows whose `whole` is known, and the gradients of the call's own classes.");
}

}  // namespace crossentropy::python
