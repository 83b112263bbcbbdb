// Python's global interpreter lock.
#pragma once

#include <nanobind/nanobind.h>

#include <chrono>
#include <thread>

namespace crossentropy::python {

// Lets other Python threads run while it lives.
class ReleasedGil {
 public:
    ReleasedGil() : state_(PyEval_SaveThread()) {}
    ~ReleasedGil() {
        // Where the interpreter has ended meanwhile, this unwinds the stack of a daemon thread, which no C++ frame
        // below has been written for: the thread waits here for the end of the process.
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        }
    }
    ReleasedGil(const ReleasedGil&) = delete;
    ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
    PyThreadState* const state_;
};

}  // namespace crossentropy::python
