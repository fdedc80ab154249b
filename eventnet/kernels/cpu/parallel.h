// Jobs on several threads: on those of torch's OpenMP runtime, which is loaded already. A pool of our own would fight its
// waiting threads for the cores. Where torch was built with another runtime, plain threads.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace eventnet {

// Calls job(0) ... job(count - 1), each once, on up to `threads` threads. After an exception no more are started;
// that of the earliest job is rethrown.
inline void parallel_for(int count, int threads, const std::function<void(int)>& job) {
    struct Team {
        const std::function<void(int)>& job;
        const int count;
        std::atomic<int> next{0};
        std::mutex mutex{};
        std::exception_ptr error{};
        int failed = count;

        void work() {
            for (int i = next++; i < count; i = next++) {
                try {
                    job(i);
                } catch (...) {
                    std::lock_guard lock(mutex);
                    if (i < failed) failed = i, error = std::current_exception();
                    next = count;
                }
            }
        }
    } team{job, count};
    threads = std::min(threads, count);
    using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
    static const Parallel openmp = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    if (threads <= 1) {
        team.work();
    } else if (openmp) {
        openmp([](void* data) { static_cast<Team*>(data)->work(); }, &team, static_cast<unsigned>(threads), 0);
    } else {
        std::vector<std::thread> others;
        for (int i = 1; i < threads; ++i) others.emplace_back([&team] { team.work(); });
        team.work();
        for (std::thread& other : others) other.join();
    }
    if (team.error) std::rethrow_exception(team.error);
}

}  // namespace eventnet
