// Backward pass of delayed_forward.h: every arrival is a look-up of its target's costates. Where it is less work the input's synapses
// get their gradients impulse by impulse instead (delayed_traces.h).
//
// Time goes in windows, from the last to the first. Between a neuron's impulses its costates r = dL/dI and v = dL/dV are closed
// form, so those at the ends of the windows and the impulses within them are all that is kept, for as long as delays reach.
//   arrival at a: dL/dw += value r(a),   dL/da = value w (r / ts - v / tm)
//   own spike k: dL/dV before = -(dL/dt_k + its arrivals - v V' at the end of its refractory period) / V' before; after it v is 0
// (Wunderlich & Pehle 2021, with delays and refractory periods.) The derivatives (c, a) of (r, v) in tau_mem and d of r in tau_syn
// give the gradients of the time constants. At the end of a refractory period v and a become 0: nothing before it is seen after it.
// A neuron's branches are cells with the same v, each with an r of its own. What is the neuron's, not a branch's, is counted at the first.
#pragma once

#include "delayed_traces.h"
#include "impulse.h"

namespace eventnet {

// What the forward pass kept of the spikes, and their gradients.
struct Kept {
    const double *times, *currents, *release_currents;
    const int32_t* units;
    const int64_t* offsets;
    Reals grads;
    double slope_floor;  // volts per second
};

template <class T>
class DelayedAdjoint {
public:
    // Rows of the sums over the batch, of each cell, after those of impulse.h.
    enum { kRefractory = kSums, kCurrent, kRows };

    // weight and delays (in, N), recurrent ones (N, N) or null, sums (kRows, N), times and values (E,) or null; all zero
    struct Out {
        T *weight, *delay, *recurrent_weight, *recurrent_delay;
        double *sums, *times, *values;
    };

    DelayedAdjoint(const Batch<T>& batch, const Layer<T>& layer, const Options<T>& options, bool with_taus)
        : batch_(batch), layer_(layer), options_(options), with_taus_(with_taus), length_(window_length(batch, layer, options.longest())),
          decays_(layer) {}

    void run(const Kept& spikes, const Out& out, int threads) {
        const bool together = options_.recurrent.weight || out.times;  // sums over all neurons are asked for
        const bool may_be_sparse = layer_.shared && !with_taus_;
        by_impulse_ = !out.times && !with_taus_ && DelayedTraces<T>::pays(batch_, layer_, options_.input, spikes.offsets);
        const bool all_at_once = together || (by_impulse_ && batch_.size >= threads);
        width_ = all_at_once ? layer_.columns : group_width<T>(batch_, layer_.columns, options_.input, may_be_sparse, threads);
        if (by_impulse_ && !options_.recurrent.weight) length_ = std::max(length_, longest_trial() / kFewWindows);
        if (!by_impulse_) input_ = DelayedRows<T>(options_.input, layer_.columns, width_, may_be_sparse);
        recurrent_ = DelayedRows<T>(options_.recurrent, layer_.columns, width_, may_be_sparse);
        const int groups = layer_.columns / width_;
        const Split parts = split(batch_, layer_.columns, std::min(threads, std::max(batch_.size, 1)));
        const int chunks = groups >= threads ? 1 : parts.chunks();
        std::vector<Part> found(static_cast<size_t>(chunks) * groups);
        parallel_for(chunks * groups, threads, [&](int job) {
            Worker worker(*this, spikes, out, found[job], job % groups);
            const int chunk = job / groups;
            const int first = chunks == 1 ? 0 : parts.samples[chunk], last = chunks == 1 ? batch_.size : parts.samples[chunk + 1];
            for (int b = first; b < last; ++b) worker.sample(b);
        });
        for (int chunk = 0; chunk < chunks; ++chunk) {  // in a fixed order: runs repeat bit for bit
            if (by_impulse_)
                parallel_for(groups * threads, threads, [&](int job) {
                    const int inputs = options_.input.sources, vectors = (inputs + kLanes<T> - 1) / kLanes<T>, part = job % threads;
                    const int first = vectors * part / threads * kLanes<T>, last = std::min(vectors * (part + 1) / threads * kLanes<T>, inputs);
                    found[chunk * groups + job / threads].traces.finish(first, last, out.weight, out.delay);
                });
            parallel_for(groups, threads, [&](int group) {
                const Part& part = found[chunk * groups + group];
                const int begin = group * width_, count = std::min(width_, layer_.num - begin);
                unpack(part.input, options_.input, input_, group, out.weight, out.delay);
                unpack(part.recurrent, options_.recurrent, recurrent_, group, out.recurrent_weight, out.recurrent_delay);
                for (int row = 0; row < kRows; ++row)
                    for (int c = 0; c < count; ++c) out.sums[static_cast<size_t>(row) * layer_.num + begin + c] += part.sums[row * width_ + c];
            });
        }
    }

private:
    static constexpr double kFewWindows = 64;  // where no arrival is looked up

    double longest_trial() const {
        double longest = 0;
        for (int b = 0; b < batch_.size; ++b) longest = std::max(longest, batch_.duration[b]);
        return longest;
    }

    // What a job finds. For each vector of synapses the gradients of the weights, then those of the delays but for the weights.
    struct Part {
        Array<T> input, recurrent;
        DelayedTraces<T> traces;
        std::vector<double> sums;
    };

    void unpack(const Array<T>& from, const Delayed<T>& synapses, const DelayedRows<T>& rows, int group, T* weight, T* delay) const {
        if (from.empty()) return;
        const int begin = group * width_, count = std::min(width_, layer_.num - begin);
        for (int j = 0; j < synapses.sources; ++j) {
            const auto row = rows.row(group, j);
            const T* const found = from.data() + rows.place(group, row);
            for (int s = 0; s < row.vectors * kLanes<T>; ++s) {
                if (row.neurons[s] >= count) continue;
                const T* const vector = found + s / kLanes<T> * DelayedRows<T>::kVector + s % kLanes<T>;
                const size_t to = static_cast<size_t>(j) * layer_.num + begin + row.neurons[s];
                weight[to] += vector[0], delay[to] += vector[kLanes<T>] * row.weight(s);
            }
        }
    }

    struct Impulse {
        double time, size, slope;  // what v and a jump by
        int later;                 // in the same window and neuron, or kNone
        int c;                     // the neuron
    };
    static constexpr int kNone = -1;

    // An event, or a spike of the layer itself.
    struct Sent {
        double time;
        typename DelayedRows<T>::Row row;
        T* gradient;  // of Part
        T value;
        T least;       // of the delays that count
        double by_time = 0, by_value = 0;  // dL/d(these)
    };

    // Costates, as columns; without gradients of the time constants the first two are all.
    enum Column { kV, kR, kA, kC, kD, kAll };

    struct Worker {
        DelayedAdjoint& all;
        const Kept& kept;
        const Out& result;
        Part& part;
        const Layer<T>& layer;
        const Options<T>& options;
        const int group, begin, width, columns;
        const int neurons;  // of the layer

        // of the sample at hand
        int window = 0;
        double start = 0, end = 0;
        Windows windows{1, 1};
        Array<T> costates;         // (columns, width), at the end of the window
        Array<T> x, y, k, x_tm, y_ts, k_tm, k_ts;  // factors over a window

        // a ring of windows: the costates at their ends, (columns, ring, width), and their impulses; one more has none
        int ring = 1;
        Array<T> pairs, table;     // v and r side by side; the others
        std::vector<int> first;    // impulse of each window and neuron
        std::vector<Impulse> impulses;
        std::vector<int> touched;  // neurons with impulses in the window
        struct Release {
            double time;
            int c;
            int64_t spike;  // or kNone: of a spike before the trial
        };
        std::vector<Release> releases;  // the last one first
        std::vector<double> pulls;      // dL/d(those of the spikes)
        std::vector<Sent> sent;

        Worker(DelayedAdjoint& parent, const Kept& spikes, const Out& out, Part& mine, int g)
            : all(parent), kept(spikes), result(out), part(mine), layer(parent.layer_), options(parent.options_), group(g),
              begin(g * parent.width_), width(parent.width_), columns(parent.with_taus_ ? kAll : kA), neurons(options.neurons(layer.num)),
              costates(static_cast<size_t>(columns) * width), x(width), y(width), k(width), x_tm(width), y_ts(width), k_tm(width), k_ts(width) {
            ring = ring_of(all.batch_, all.length_, all.by_impulse_ ? options.recurrent.longest : options.longest());
            if (all.by_impulse_) part.traces = DelayedTraces<T>(all.batch_, layer, options.input, begin, width);
            pairs.resize(2 * (static_cast<size_t>(ring + 1) * width + kLanes<T>)), table.resize(static_cast<size_t>(columns - kA) * (ring + 1) * width);
            first.assign(static_cast<size_t>(ring + 1) * width + kLanes<T>, kNone);
            if (!all.by_impulse_) part.input.assign(all.input_.size(group), T(0));
            part.recurrent.assign(all.recurrent_.size(group), T(0));
            part.sums.assign(static_cast<size_t>(kRows) * width, 0.0);
        }

        double& sum(int row, int c) { return part.sums[static_cast<size_t>(row) * width + c]; }
        T& costate(int column, int c) { return costates[static_cast<size_t>(column) * width + c]; }
        T* table_of(int column) { return &table[static_cast<size_t>(column - kA) * (ring + 1) * width]; }
        int slot(int w) const { return (w & (ring - 1)) * width; }

        // Calls f(c) for the cells of neuron n that are in the group.
        template <class F>
        void each_of(int n, const F& f) const {
            for (int cell = n; cell < layer.num; cell += neurons)
                if (cell >= begin && cell < begin + width) f(cell - begin);
        }
        bool is_first(int c) const { return begin + c < neurons; }  // branch of its neuron

        void sample(int b) {
            const Batch<T>& batch = all.batch_;
            int64_t last = kept.offsets[b + 1];
            const int64_t from = kept.offsets[b];
            while (last > from && kept.grads[last - 1] == 0) --last;
            if (last == from) return;
            windows = Windows(batch.duration[b], all.length_);
            factors();
            releases.clear(), impulses.clear();
            for (int64_t s = last; s-- > from;) {
                const double free = kept.times[s] + double(options.refractory[kept.units[s]]);
                each_of(kept.units[s], [&](int c) { releases.push_back({free, c, s}); });
            }
            for (int c = 0; c < std::min(width, layer.num - begin); ++c)
                if (options.held(b, begin + c) > 0) releases.push_back({options.held(b, begin + c), c, kNone});
            std::erase_if(releases, [&](const Release& r) { return r.time >= windows.duration; });
            std::stable_sort(releases.begin(), releases.end(), [](const Release& x, const Release& y) { return x.time > y.time; });
            pulls.assign(last - from, 0.0);
            std::fill(costates.begin(), costates.end(), T(0));
            std::fill(pairs.begin(), pairs.end(), T(0)), std::fill(table.begin(), table.end(), T(0));
            std::fill(first.begin(), first.end(), kNone);
            size_t next = 0;
            int64_t s = last, e = batch.counted(b);
            for (window = windows.count - 1; window >= 0; --window) {
                start = windows.start(window), end = windows.end(window);
                for (int column = kA; column < columns; ++column) std::copy_n(&costate(column, 0), width, table_of(column) + slot(window));
                for (int c = 0; c < width; ++c) pair(c)[0] = marked(costate(kV, c), false), pair(c)[1] = costate(kR, c);
                std::fill_n(&first[slot(window)], width, kNone);
                while (s > from && (kept.times[s - 1] >= start || window == 0)) {
                    const double time = kept.times[--s];
                    const auto is_next = [&](const Release& r) { return r.time > time || (r.time == time && (r.spike == kNone || r.spike >= s)); };
                    for (; next < releases.size() && is_next(releases[next]); ++next) release(releases[next], from);
                    spike(s, from);
                }
                for (; next < releases.size() && (releases[next].time >= start || window == 0); ++next) release(releases[next], from);
                sent.clear();
                const int64_t until = e;
                for (; !all.by_impulse_ && e > batch.offsets[b] && (batch.times[e - 1] >= start || window == 0); --e) {
                    const int unit = batch.units[e - 1];
                    if (unit < batch.inputs) send(batch.times[e - 1], all.input_, part.input, unit, batch.value(e - 1));
                    else send(batch.times[e - 1], all.recurrent_, part.recurrent, unit - batch.inputs, batch.value(e - 1));
                }
                look_up();
                for (int64_t at = until; at-- > e;) {
                    if (result.times) result.times[at] = sent[until - 1 - at].by_time;
                    if (result.values) result.values[at] = sent[until - 1 - at].by_value;
                }
                earlier();
            }
            if (all.by_impulse_) {
                part.traces.start(b);
                for (auto one = impulses.rbegin(); one != impulses.rend(); ++one) part.traces.add(one->c, one->time, one->size);
            }
            for (int c = 0; c < std::min(width, layer.num - begin); ++c) {
                const double voltage = options.voltage(b, begin + c) - layer.neurons[begin + c].bias, current = options.current(b, begin + c);
                sum(kCurrent, c) += costate(kR, c);
                if (is_first(c)) sum(kStart, c) += costate(kV, c);
                if (!all.with_taus_) continue;
                sum(kTauMem, c) += current * costate(kC, c), sum(kTauSyn, c) += current * costate(kD, c);
                if (is_first(c)) sum(kTauMem, c) += voltage * costate(kA, c);
            }
        }

        void send(double time, const DelayedRows<T>& rows, Array<T>& gradients, int source, T value) {
            const auto row = rows.row(group, source);
            sent.push_back({time, row, gradients.data() + rows.place(group, row), value, shortest_to_come<T>(time)});
        }

        void factors() {
            const Vec<T> length = splat(T(windows.length));
            for (int c = 0; c < width; c += kLanes<T>) {
                const Vec<T> p = load(&layer.p[begin + c]), q = load(&layer.q[begin + c]);
                const Decay<Vec<T>> f = decay<T>(length, p, q);
                store(&x[c], f.x), store(&y[c], f.y), store(&k[c], f.k);
                if (!all.with_taus_) continue;
                const TauSlope<Vec<T>> g = tau_slope<T>(length, p, q);
                store(&x_tm[c], g.x_tm), store(&y_ts[c], g.y_ts), store(&k_tm[c], g.k_tm), store(&k_ts[c], g.k_ts);
            }
        }

        Decay<double> decay_of(int c, double s) const {
            return s < layer.brief ? layer.series[layer.shared ? 0 : begin + c].factors(s) : layer.neurons[begin + c].decay(s);
        }

        // Adds what an impulse makes of the costates at an earlier time.
        void add_impulse(int c, const Impulse& impulse, double time, Costate& to) const {
            const double s = std::max(impulse.time - time, 0.0), size = impulse.size, slope = impulse.slope;
            const Decay<double> f = decay_of(c, s);
            to.v += size * f.x, to.r += size * f.k;
            if (!all.with_taus_) return;
            const Neuron& neuron = layer.neurons[begin + c];
            const TauSlope<Vec<double>> g = tau_slope<double>(splat(s), splat(neuron.p), splat(neuron.q));
            to.a += slope * f.x + size * g.x_tm[0], to.c += slope * f.k + size * g.k_tm[0], to.d += size * g.k_ts[0];
        }

        // The costates of a neuron at a time in the window, just before the impulses known so far.
        Costate at(int c, double time) const {
            const auto now = [&](int column) { return column < columns ? double(costates[static_cast<size_t>(column) * width + c]) : 0.0; };
            const double s = std::max(end - time, 0.0);
            Costate found{now(kV), now(kR), now(kA), now(kC), now(kD)};
            if (all.with_taus_) {
                found = found.earlier(s, layer.neurons[begin + c], true);
            } else {
                const Decay<double> f = decay_of(c, s);
                found = {found.v * f.x, found.r * f.y + found.v * f.k};
            }
            for (int k = first[slot(window) + c]; k != kNone; k = impulses[k].later)
                add_impulse(c, impulses[k], time, found);
            return found;
        }

        void impulse(int c, double time, double size, double slope) {
            int& head = first[slot(window) + c];
            if (head == kNone) touched.push_back(c), pair(c)[0] = marked(pair(c)[0], true);
            else if (impulses[head].time == time) return void((impulses[head].size += size, impulses[head].slope += slope));
            impulses.push_back({time, size, slope, head, c});
            head = static_cast<int>(impulses.size()) - 1;
        }

        T* pair(int c) { return &pairs[2 * static_cast<size_t>(slot(window) + c)]; }

        // The last bit of v in a pair tells whether the window holds impulses of the neuron: no look-up of its own for that.
        static T marked(T v, bool has_impulses) {
            Int bits;
            std::memcpy(&bits, &v, sizeof v);
            bits = (bits & ~Int(1)) | Int(has_impulses);
            std::memcpy(&v, &bits, sizeof v);
            return v;
        }

        void spike(int64_t s, int64_t from) {
            const int n = kept.units[s];
            const double time = kept.times[s], current = kept.currents[s];
            double grad = kept.grads[s] + pulls[s - from];
            if (options.recurrent.weight) {
                sent.clear(), send(time, all.recurrent_, part.recurrent, n, T(1));
                look_up(true);
                grad += sent[0].by_time;
            }
            const Neuron& neuron = layer.neurons[n];
            const double size = -grad * neuron.tm / rise_before<T>(neuron, current, kept.slope_floor);
            each_of(n, [&](int c) {
                if (is_first(c)) sum(kBefore, c) += at(c, time).v + size;
                impulse(c, time, size, 0);
            });
        }

        // The end of a refractory period: what comes after it sees the voltage from its reset on only.
        void release(const Release& one, int64_t from) {
            const Neuron& neuron = layer.neurons[begin + one.c];
            const Costate here = at(one.c, one.time);
            impulse(one.c, one.time, -here.v, -here.a);
            const double by_time = one.spike == kNone ? 0 : -here.v * (kept.release_currents[one.spike] - neuron.rise) * neuron.p;
            if (one.spike != kNone) pulls[one.spike - from] = by_time;
            if (is_first(one.c)) sum(kAfter, one.c) += here.v, sum(kTauMem, one.c) += neuron.rise * here.a, sum(kRefractory, one.c) += by_time;
        }

        // From the end of the window to its start.
        void earlier() {
            for (int c = 0; c < width; c += kLanes<T>) {
                const Vec<T> v = load(&costate(kV, c)), r = load(&costate(kR, c)), f_x = load(&x[c]), f_y = load(&y[c]), f_k = load(&k[c]);
                store(&costate(kV, c), v * f_x), store(&costate(kR, c), r * f_y + v * f_k);
                if (!all.with_taus_) continue;
                const Vec<T> a = load(&costate(kA, c));
                store(&costate(kA, c), a * f_x + v * load(&x_tm[c]));
                store(&costate(kC, c), load(&costate(kC, c)) * f_y + a * f_k + v * load(&k_tm[c]));
                store(&costate(kD, c), load(&costate(kD, c)) * f_y + r * load(&y_ts[c]) + v * load(&k_ts[c]));
            }
            for (const int c : touched) {
                Costate more;
                for (int k = first[slot(window) + c]; k != kNone; k = impulses[k].later) add_impulse(c, impulses[k], start, more);
                costate(kV, c) += T(more.v), costate(kR, c) += T(more.r);
                if (all.with_taus_) costate(kA, c) += T(more.a), costate(kC, c) += T(more.c), costate(kD, c) += T(more.d);
            }
            touched.clear();
        }

        // What was sent, at its arrivals. Sparse rows one by one; in others a vector is of the same neurons in every row.
        void look_up(bool sums = false) {
            sums = sums || result.times;
            if (all.input_.sparse || all.recurrent_.sparse) {
                for (Sent& one : sent) look_up(&one, &one + 1, 0, one.row.vectors, sums);
                return;
            }
            for (int v = 0; v < width / kLanes<T>; ++v) look_up(sent.data(), sent.data() + sent.size(), v, v + 1, sums);
        }

        void look_up(Sent* from, Sent* to, int first_vector, int last_vector, bool sums) {
            const bool brief = windows.length <= layer.brief;
            if (all.with_taus_) brief ? look_up<true, true, true>(from, to, first_vector, last_vector) : look_up<false, true, true>(from, to, first_vector, last_vector);
            else if (sums) brief ? look_up<true, false, true>(from, to, first_vector, last_vector) : look_up<false, false, true>(from, to, first_vector, last_vector);
            else brief ? look_up<true, false, false>(from, to, first_vector, last_vector) : look_up<false, false, false>(from, to, first_vector, last_vector);
        }

        using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

        // Vectors [first_vector, last_vector) of the rows of what was sent; with sums over these. Where neurons have time constants
        // of their own it is one vector.
        template <bool Brief, bool Taus, bool Sums>
        __attribute__((noinline)) void look_up(Sent* from, Sent* to, int first_vector, int last_vector) {
            const int c = layer.shared ? 0 : first_vector * kLanes<T>;
            constexpr int kTerms = Decays<T>::kTerms;
            const T* const coefficients = all.decays_.of(begin + c);
            Vec<T> of_x[kTerms], of_y[kTerms], of_k[kTerms];
            for (int n = 0; n < kTerms; ++n) {
                of_y[n] = load(coefficients + n * kLanes<T>), of_k[n] = load(coefficients + (kTerms + n) * kLanes<T>);
                of_x[n] = load(coefficients + (2 * kTerms + n) * kLanes<T>);
            }
            const Vec<T> length = splat(T(windows.length)), rate = splat(T(1 / windows.length)), last = splat(T(windows.count - window));
            const Vec<T> p = load(&layer.p[begin + c]), q = load(&layer.q[begin + c]);
            const Int in_ring = ring - 1, at_hand = window, wide = width;
            const T* const all_pairs = pairs.data();
            const double now = start;
            Vec<T> by_tau_mem{}, by_tau_syn{};
            for (Sent* sending = from; sending < to; ++sending) {
                for (int v = first_vector; v < last_vector; ++v) {
                    Sent& one = *sending;
                    const T* const synapses = one.row.vector(v);
                    const Int* const neurons = one.row.neurons + v * kLanes<T>;
                    IntVec<T> neuron;
                    std::memcpy(&neuron, neurons, sizeof neuron);
                    const Vec<T> delay = load(synapses + kLanes<T>), arrival = T(one.time - now) + delay;
                    const Vec<T> after = arrival * rate;  // windows from now on
                    const IntVec<T> counts = (after < last) & (delay >= one.least), whole = __builtin_convertvector(after, IntVec<T>);
                    // nothing may overflow where nothing counts: infinity times the costate 0 would be NaN
                    const Vec<T> left = select<T>(counts, (__builtin_convertvector(whole, Vec<T>) + T(1)) * length - arrival, Vec<T>{});
                    const IntVec<T> place = (counts ? (whole + at_hand) & in_ring : IntVec<T>{} + (in_ring + 1)) * wide + neuron;
                    Vec<T> of_v, r;
                    gather_pairs<T>(all_pairs, place, of_v, r);
                    Decay<Vec<T>> f;
                    if constexpr (Brief) {
                        f = {of_x[0], of_y[0], of_k[0]};
#pragma GCC unroll 16
                        for (int n = 1; n < kTerms; ++n) f.x = f.x * left + of_x[n], f.y = f.y * left + of_y[n], f.k = f.k * left + of_k[n];
                    } else {
                        f = decay<T>(max<T>(left, Vec<T>{}), p, q);
                    }
                    Vec<T> v0 = of_v * f.x, r0 = r * f.y + of_v * f.k, c0{}, d0{};
                    if constexpr (Taus) {
                        const TauSlope<Vec<T>> g = tau_slope<T>(max<T>(left, Vec<T>{}), p, q);
                        c0 = gather<T>(table_of(kC), place) * f.y + gather<T>(table_of(kA), place) * f.k + of_v * g.k_tm;
                        d0 = gather<T>(table_of(kD), place) * f.y + r * g.y_ts + of_v * g.k_ts;
                    }
                    uint32_t lanes = bits<T>(((IntVec<T>)of_v & 1) != 0);
                    if (__builtin_expect(lanes != 0, 0)) {
                        for (; lanes; lanes &= lanes - 1) {
                            const int l = __builtin_ctz(lanes);
                            const double time = now + double(arrival[l]);
                            Costate more;
                            for (int i = first[place[l]]; i != kNone; i = impulses[i].later)
                                if (impulses[i].time > time) add_impulse(static_cast<int>(neurons[l]), impulses[i], time, more);
                            v0[l] += T(more.v), r0[l] += T(more.r), c0[l] += T(more.c), d0[l] += T(more.d);
                        }
                    }
                    const Vec<T> pull = r0 * q - v0 * p;
                    T *const of_weight = one.gradient + (synapses - one.row.data), *const of_delay = of_weight + kLanes<T>;
                    store(of_weight, load(of_weight) + one.value * r0), store(of_delay, load(of_delay) + one.value * pull);
                    if constexpr (Sums) {
                        const Vec<T> weight = load(synapses);
                        one.by_time += one.value * sum_of(weight * pull), one.by_value += sum_of(weight * r0);
                        if constexpr (Taus) by_tau_mem += one.value * weight * c0, by_tau_syn += one.value * weight * d0;
                    }
                }
            }
            if constexpr (Taus)
                for (int l = 0, n = first_vector * kLanes<T>; l < kLanes<T>; ++l) sum(kTauMem, n + l) += by_tau_mem[l], sum(kTauSyn, n + l) += by_tau_syn[l];
        }

        static double sum_of(Vec<T> v) { return eventnet::sum<T>(v); }
    };

    const Batch<T>& batch_;
    const Layer<T>& layer_;
    const Options<T>& options_;
    const bool with_taus_;
    double length_;  // windows are not longer
    bool by_impulse_ = false;
    const Decays<T> decays_;
    int width_ = 0;        // neurons that are looked at together
    DelayedRows<T> input_, recurrent_;
};

}  // namespace eventnet
