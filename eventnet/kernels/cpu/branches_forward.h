// Spikes of a layer of neurons with dendritic branches, as those of lif_forward.h: a window of events at a time, and event by event
// where the bound of the voltage over the window reaches the threshold. The bound of the current is the sum of the branches' bounds.
#pragma once

#include "branches.h"
#include "delayed.h"
#include "lif_forward.h"

namespace eventnet {

// A plan and its factors for each branch.
template <class T, bool Shared>
struct BranchPlan : Plan<T, Shared> {
    using Base = Plan<T, Shared>;
    struct Factors {
        Table<T, Shared> span, to_end, step;
    };

    explicit BranchPlan(const Branches<T>& all) : Base(all.first()), branches(all), more(all.count() - 1) {}

    void cut(double now, bool all, double duration, size_t most, double longest = INFINITY) {
        Base::cut(now, all, duration, most, std::min(longest, Base::kWindowSpan * branches.shortest_tau));
        tabulate();
    }

    void cut_short(double limit) {
        Base::cut_short(limit);
        tabulate();
    }

    void fill_steps(const Window& w) {
        Base::fill_steps(w);
        const size_t count = std::max(w.events(), 1);
        for (size_t k = 0; k < more.size(); ++k) copy(this->step, more[k].step, count, k + 1);
    }

    const Table<T, Shared>& span_of(int k) const { return Shared && k ? more[k - 1].span : this->span; }
    const Table<T, Shared>& to_end_of(int k) const { return Shared && k ? more[k - 1].to_end : this->to_end; }
    const Table<T, Shared>& step_of(int k) const { return Shared && k ? more[k - 1].step : this->step; }

private:
    void tabulate() {
        for (size_t k = 0; k < more.size(); ++k) {
            copy(this->span, more[k].span, this->windows.size(), k + 1);
            copy(this->to_end, more[k].to_end, this->windows.back().last, k + 1);
        }
    }

    void copy(const Table<T, Shared>& from, Table<T, Shared>& to, size_t count, size_t k) {
        if constexpr (!Shared) return;
        to.make_room(count);
        std::copy_n(from.s.begin(), count, to.s.begin());
        to.fill(count, branches[static_cast<int>(k)]);
    }

    const Branches<T>& branches;
    std::vector<Factors> more;  // of the branches but for the first
};

template <class T, bool Shared>
class BranchForward {
public:
    BranchForward(const Batch<T>& batch, const Branches<T>& branches, int64_t max_spikes, const Recurrent<T>* recurrent = nullptr)
        : task_{batch, branches.first(), max_spikes, recurrent}, branches_(branches) {
        if constexpr (!Shared)
            for (int k = 0; k < branches.count(); ++k) decays_.emplace_back(branches[k]);
    }

    // Spikes of every sample, sorted.
    std::vector<std::vector<Spike>> run(int threads) {
        return spikes_of(task_, threads, [&](int begin, int end) { return Worker(*this, begin, end); });
    }

private:
    static constexpr int kTile = Shared ? 4 : 1;  // vectors in registers
    static constexpr double kClose = sizeof(T) == 4 ? 1e-8 : 1e-12;  // of the threshold, relative: from there it is one step of Newton's

    struct Worker : Windowed<Worker, T, BranchPlan<T, Shared>> {
        using Base = Windowed<Worker, T, BranchPlan<T, Shared>>;
        using Base::layer, Base::begin, Base::end, Base::plan, Base::u, Base::i, Base::next_u, Base::next_i, Base::loud, Base::num_loud;
        using Base::current_sample, Base::foresight, Base::emit, Base::gather;

        BranchForward& all;
        const Branches<T>& branches;  // layer is that of the first: what all branches share
        const int count, columns;
        Array<T> packed, packed_next;  // currents (K, lanes) of neurons that are replayed
        BranchedNeuron neuron;

        Worker(BranchForward& parent, int from, int to)
            : Base(parent.task_, parent.branches_, parent.branches_.count(), from, to), all(parent), branches(parent.branches_),
              count(branches.count()), columns(layer.columns), packed(static_cast<size_t>(count) * kLanes<T>), packed_next(packed),
              neuron(count) {}

        void tiles(size_t w) {
            int column = begin;
            for (; column + kTile * kLanes<T> <= end; column += kTile * kLanes<T>) tile<kTile>(w, column);
            for (; column < end; column += kLanes<T>) tile<1>(w, column);
        }

        // Factors y and k of branch k over the stretch from arrival e to the end of its window, which is short.
        void factors(int k, int e, int column, Vec<T>& y, Vec<T>& kernel) const {
            if constexpr (Shared) {
                const Decay<T> f = plan.to_end_of(k).one(e);
                y = splat(f.y), kernel = splat(f.k);
            } else {
                constexpr int kTerms = Decays<T>::kTerms;
                const T* const c = all.decays_[k].of(column);
                const T s = plan.to_end.s[e];
                y = load(c), kernel = load(c + kTerms * kLanes<T>);
#pragma GCC unroll 16
                for (int n = 1; n < kTerms; ++n) {
                    y = y * s + load(c + n * kLanes<T>);
                    kernel = kernel * s + load(c + (kTerms + n) * kLanes<T>);
                }
            }
        }

        // All events of window w on N vectors of neurons, a branch after the other.
        template <int N>
        __attribute__((noinline)) void tile(size_t w, int column) {
            const Window window = plan.windows[w];
            const bool many = window.events() > 1, arrives = window.events() > 0;
            const Drive<T>* const drives = plan.arrivals.drives.data();
            const T *const ps = &layer.p[column], *const u0s = &u[column];
            const T size = arrives ? drives[window.last - 1].size : T(0);
            Vec<T> voltage[N], strongest[N], bound[N], fade[N];
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v) voltage[v] = strongest[v] = bound[v] = fade[v] = Vec<T>{};
            for (int k = 0; k < count; ++k) {
                const size_t of_branch = static_cast<size_t>(k) * columns + column;
                // what the events but for the last add to the currents at the end, and the largest partial sum of it
                Vec<T> current[N], highest[N];
#pragma GCC unroll 8
                for (int v = 0; v < N; ++v) current[v] = highest[v] = Vec<T>{};
                for (int e = window.first; e + 1 < window.last; ++e) {
                    const T* const row = drives[e].row + of_branch;
                    const T value = drives[e].size;
#pragma GCC unroll 8
                    for (int v = 0; v < N; ++v) {
                        Vec<T> y, kernel;
                        factors(k, e, column + v * kLanes<T>, y, kernel);
                        const Vec<T> drive = load(row + v * kLanes<T>);
                        current[v] += y * value * drive;
                        voltage[v] += kernel * value * drive;
                        highest[v] = max<T>(current[v], highest[v]);
                    }
                }
                const Layer<T>& branch = branches[k];
                const T *const qs = &branch.q[column], *const i0s = &i[of_branch];
                T* const i1s = &next_i[of_branch];
                // the last event arrives at the end; without one, nothing (0 times numbers that are finite)
                const T* const row = arrives ? drives[window.last - 1].row + of_branch : i0s;
#pragma GCC unroll 8
                for (int v = 0; v < N; ++v) {
                    const int at = v * kLanes<T>;
                    const Decay<Vec<T>> f = plan.span_of(k).at(w, load(ps + at), load(qs + at));
                    const Vec<T> i0 = load(i0s + at), top = many ? i0 + highest[v] * plan.span_of(k).growth(w, f.y) : i0;
                    strongest[v] += select<T>(top > T(0), top, top * f.y);
                    if (!many) {
                        const Vec<T> peak = plan.span_of(k).k_max(w, f.k, load(&branch.s_peak[column + at]), load(&branch.k_peak[column + at]));
                        bound[v] += max<T>(i0, Vec<T>{}) * peak;
                    }
                    fade[v] = f.x;
                    voltage[v] += i0 * f.k;
                    store(i1s + at, i0 * f.y + current[v] + size * load(row + at));
                }
            }
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v) {
                const int at = v * kLanes<T>;
                const Vec<T> u0 = load(u0s + at);
                // the voltage relaxes towards the sum of the currents, so it stays below what the largest sum would make of it;
                // and what currents make of it alone is at most the sum of the peaks
                Vec<T> reach = u0 + max<T>(strongest[v] - u0, Vec<T>{}) * (T(1) - fade[v]);
                if (!many) {
                    const Vec<T> peaks = max<T>(u0, Vec<T>{}) + bound[v];
                    reach = select<T>(peaks < reach, peaks, reach);
                }
                store(&next_u[column + at], u0 * fade[v] + voltage[v]);
                const uint32_t lanes = not_less<T>(reach, load(&layer.gap[column + at]));
                loud[num_loud] = {column + at, lanes};
                num_loud += lanes != 0;
            }
        }

        // The same stretch by stretch, for up to a vector of neurons, wherever they are.
        __attribute__((noinline)) void replay(const Window& window, const int* neurons, int num) {
            const bool tail = window.first == window.last;
            const int stretches = tail ? 1 : window.events();
            for (int k = 0; k < count; ++k) store(&packed[k * kLanes<T>], gather(&i[static_cast<size_t>(k) * columns], neurons, num));
            Vec<T> u0 = gather(u.data(), neurons, num);
            const Vec<T> gap = gather(layer.gap.data(), neurons, num), p = gather(layer.p.data(), neurons, num, T(1));
            const uint32_t all_lanes = (1u << num) - 1;
            for (int s = 0; s < stretches; ++s) {
                const T span = plan.step.s[s];
                const Drive<T>* const drive = tail ? nullptr : &plan.arrivals.drives[window.first + s];
                Vec<T> heard{}, strongest{}, fade{};
                for (int k = 0; k < count; ++k) {
                    const Vec<T> q = Shared ? Vec<T>{} : gather(branches[k].q.data(), neurons, num, T(1));
                    const Decay<Vec<T>> f = plan.step_of(k).at(s, p, q);
                    const Vec<T> i0 = load(&packed[k * kLanes<T>]), i1 = i0 * f.y;
                    fade = f.x, heard += i0 * f.k, strongest += select<T>(i0 > T(0), i0, i1);
                    T arrived[kLanes<T>];
                    store(arrived, i1);
#pragma GCC unroll 1
                    for (int l = 0; drive && l < num; ++l) arrived[l] += drive->size * drive->row[static_cast<size_t>(k) * columns + neurons[l]];
                    store(&packed_next[k * kLanes<T>], load(arrived));
                }
                Vec<T> u1 = u0 * fade + heard;
                const Vec<T> steepest = p * span, part = select<T>(steepest < T(1), steepest, splat(T(1)));
                const Vec<T> reach = u0 + max<T>(strongest - u0, Vec<T>{}) * part;
                if (const uint32_t lanes = all_lanes & not_less<T>(reach, gap)) {
                    const double from = s ? plan.arrivals.times[window.first + s - 1] : window.start;
                    const double until = tail ? window.end : plan.arrivals.times[window.first + s];
                    cross(lanes, neurons, u0, u1, from, until);
                }
                u0 = u1;
                packed.swap(packed_next);
            }
            T end_u[kLanes<T>];
            store(end_u, u0);
#pragma GCC unroll 1
            for (int l = 0; l < num; ++l) {
                next_u[neurons[l]] = end_u[l];
                for (int k = 0; k < count; ++k) next_i[static_cast<size_t>(k) * columns + neurons[l]] = packed[k * kLanes<T> + l];
            }
        }

        // Lanes that may cross the threshold in a stretch: with all their spikes u1, the voltages at its end without a spike, become
        // the true ones.
        __attribute__((noinline)) void cross(uint32_t lanes, const int* neurons, const Vec<T>& u0, Vec<T>& u1, double now, double until) {
            for (; lanes; lanes &= lanes - 1) {
                const int l = __builtin_ctz(lanes), n = neurons[l];
                neuron.be([&](int k) { return &branches[k].neurons[n]; });
                neuron.voltage = u0[l];
                bool finite = std::isfinite(neuron.voltage), spikes = false;
                for (int k = 0; k < count; ++k) {
                    neuron.currents()[k] = packed[k * kLanes<T> + l];
                    finite = finite && std::isfinite(neuron.currents()[k]);
                }
                if (!finite) not_finite(current_sample, n);
                double at = now;
                for (double wait; (wait = neuron.crossing(until - at, kClose)) >= 0;) {
                    at = std::min(at + wait, until);
                    emit({at, neuron.spike(wait), n});
                    spikes = true;
                    if (at >= foresight) break;  // the window will end there
                }
                if (spikes) u1[l] = T(neuron.end(until - at));
            }
        }
    };

    Task<T> task_;
    const Branches<T>& branches_;
    std::vector<Decays<T>> decays_;  // of each branch, where neurons have time constants of their own
};

}  // namespace eventnet
