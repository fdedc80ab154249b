// Jobs on several threads: on those of torch's OpenMP runtime, which is loaded already. A pool of our own would fight its
// waiting threads for the cores. Where torch was built with another runtime, plain threads.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
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

// Where the threads of a team wait for each other; in vain, and no longer, once one of them has failed.
class Barrier {
public:
    struct Failed {};

    explicit Barrier(int count) : count_(count) {}

    void fail() { failed_.store(true, std::memory_order_release); }

    void wait() {
        const int round = round_.load(std::memory_order_acquire);
        if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
            waiting_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
            if (failed_.load(std::memory_order_acquire)) throw Failed{};
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
            if (spins > 512) std::this_thread::yield();  // more threads than cores
        }
    }

private:
    const int count_;
    std::atomic<int> waiting_{0}, round_{0};
    std::atomic<bool> failed_{false};
};

// Calls body(part, parts, barrier) on all threads of a team at once: on as many as there are, at most `threads`. After an exception the
// others stop where they wait; the first is rethrown.
inline void team(int threads, const std::function<void(int, int, Barrier&)>& whole) {
    std::mutex mutex;
    std::exception_ptr error;
    const std::function<void(int, int, Barrier&)> body = [&](int part, int parts, Barrier& barrier) {
        try {
            whole(part, parts, barrier);
        } catch (const Barrier::Failed&) {
        } catch (...) {
            std::lock_guard lock(mutex);
            if (!error) error = std::current_exception();
            barrier.fail();
        }
    };
    using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
    using Count = int (*)();
    static const Parallel openmp = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    static const Count size = reinterpret_cast<Count>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
    static const Count number = reinterpret_cast<Count>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
    struct Team {
        const std::function<void(int, int, Barrier&)>& body;
        std::optional<Barrier> barrier{};
        std::atomic<bool> ready{false};
    } all{body};
    if (threads <= 1) {
        Barrier alone(1);
        body(0, 1, alone);
    } else if (openmp && size && number) {  // the runtime may give fewer threads than asked for
        openmp(
            [](void* data) {
                Team& mine = *static_cast<Team*>(data);
                if (number() == 0) mine.barrier.emplace(size()), mine.ready.store(true, std::memory_order_release);
                while (!mine.ready.load(std::memory_order_acquire)) std::this_thread::yield();
                mine.body(number(), size(), *mine.barrier);
            },
            &all, static_cast<unsigned>(threads), 0);
    } else {
        Barrier barrier(threads);
        std::vector<std::thread> others;
        for (int i = 1; i < threads; ++i) others.emplace_back([&, i] { body(i, threads, barrier); });
        body(0, threads, barrier);
        for (std::thread& other : others) other.join();
    }
    if (error) std::rethrow_exception(error);
}

}  // namespace eventnet
