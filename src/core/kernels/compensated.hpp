// Sums whose rounding errors are known. V is a number or a vector of numbers.
#pragma once

#include "target.hpp"

CE_BEGIN

// The exact result is value + error: the rounded result, and what rounding left out.
template <class V>
struct Exact {
    V value, error;
};

// a + b (Knuth's two-sum; for any order of magnitudes, but not where the sum overflows).
template <class V>
CE_INLINE Exact<V> two_sum(V a, V b) {
    const V sum = a + b;
    const V t = sum - a;
    return {sum, (a - (sum - t)) + (b - t)};
}

// a - b, likewise. Not two_sum(a, -b): its error may be a zero of the other sign, and it takes one more instruction.
template <class V>
CE_INLINE Exact<V> two_diff(V a, V b) {
    const V difference = a - b;
    const V t = difference - a;
    return {difference, (a - (difference - t)) - (b + t)};
}

// A sum with its errors added; an infinity or a NaN stays what it is, since its error is NaN.
template <class V>
CE_INLINE V with_error(V sum, V error) {
    return sum - sum == 0 ? sum + error : sum;
}

struct CompensatedSum {
    double sum = 0.0, error = 0.0;

    void add(double x) {
        const Exact<double> next = two_sum(sum, x);
        sum = next.value;
        error += next.error;
    }
    void add(const CompensatedSum& other, double factor = 1.0) {
        add(other.sum * factor);
        error += other.error * factor;
    }
    double total() const { return with_error(sum, error); }
};

CE_END
