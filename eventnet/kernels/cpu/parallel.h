// A small pool of threads. torch brings its own OpenMP runtime; a second one would fight it for the cores.
#pragma once

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace eventnet {

class Pool {
public:
    explicit Pool(int workers) {
        for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { serve(); });
    }

    // Calls job(0) ... job(count - 1), this thread helping; rethrows the first exception.
    void run(int count, const std::function<void(int)>& job) {
        {
            std::lock_guard lock(mutex_);
            job_ = &job;
            count_ = count;
            next_ = 0;
            pending_ = count;
            error_ = nullptr;
            ++generation_;
        }
        wake_.notify_all();
        work();
        std::unique_lock lock(mutex_);
        done_.wait(lock, [this] { return pending_ == 0 && active_ == 0; });
        job_ = nullptr;
        if (error_) std::rethrow_exception(error_);
    }

private:
    void work() {
        for (;;) {
            const int i = next_.fetch_add(1);
            if (i >= count_) return;
            try {
                (*job_)(i);
            } catch (...) {
                std::lock_guard lock(mutex_);
                if (!error_) error_ = std::current_exception();
            }
            std::lock_guard lock(mutex_);
            if (--pending_ == 0) done_.notify_all();
        }
    }

    void serve() {
        uint64_t seen = 0;
        std::unique_lock lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return generation_ != seen && job_ != nullptr; });
            seen = generation_;
            ++active_;
            lock.unlock();
            work();
            lock.lock();
            if (--active_ == 0) done_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> threads_;
    const std::function<void(int)>* job_ = nullptr;
    std::atomic<int> next_{0};
    int count_ = 0, pending_ = 0, active_ = 0;
    uint64_t generation_ = 0;
    std::exception_ptr error_;
};

// The pool is made on first use and again in a forked child, whose threads are gone. It is never destroyed: its threads
// end with the process.
inline void parallel_for(int count, int threads, const std::function<void(int)>& job) {
    if (threads <= 1 || count <= 1) {
        for (int i = 0; i < count; ++i) job(i);
        return;
    }
    static std::mutex guard;
    static Pool* pool = nullptr;
    static int workers = 0;
    static pid_t owner = 0;
    std::unique_lock lock(guard, std::try_to_lock);
    if (!lock.owns_lock()) {  // another Python thread is in a kernel: this one works alone
        for (int i = 0; i < count; ++i) job(i);
        return;
    }
    if (owner != getpid() || workers < threads - 1) {
        pool = new Pool(threads - 1);
        workers = threads - 1;
        owner = getpid();
    }
    pool->run(count, job);
}

}  // namespace eventnet
