// Spikes of neurons each of which has its own order of arrivals: delays per synapse or per target, refractory periods.
//
// Time goes in windows. Without a spike a window acts on a neuron linearly, so its arrivals can be added up in any order, long
// before the window comes: what they make of the current and of the voltage at its end, and a bound on what they add to the voltage
// within it. These three sums, and the newest arrival, are a record of 4 numbers for each window and neuron: an event costs one
// look-up of its window and one load, add and store per synapse. Only neurons whose bound reaches the threshold sort the arrivals of
// their window and go from one to the next.
//
// In a recurrent layer a spike may change what follows in its window. Each neuron goes up to its next spike; those no later than the
// first of them plus the smallest delay are certain. They are sent, and their neurons and those that they reach within the window
// go on from where they are certain, until none is left.
//
// Of neurons with K dendritic branches every branch is a cell with records and a current of its own: cell k N + n is branch k of
// neuron n. The layer is one of K N cells; a neuron's threshold, reset and membrane are those of its first.
#pragma once

#include <atomic>
#include <numeric>

#include "branches.h"
#include "delayed.h"
#include "parallel.h"

namespace eventnet {

struct Released {
    double time, current;
    int unit;
    double release_current = 0;  // at the end of the refractory period
};

// The state of every sample and cell at the end of the trial, (B, N) each, or null. Voltages are those of the first N cells.
template <class T>
struct Final {
    T *voltage = nullptr, *current = nullptr, *held = nullptr;
};

template <class T, bool Branched>
class DelayedForward {
public:
    DelayedForward(const Batch<T>& batch, const Layer<T>& layer, const Options<T>& options, int64_t max_spikes, int threads, Final<T> final = {})
        : batch_(batch), layer_(layer), options_(options), max_spikes_(max_spikes), threads_(threads), final_(final),
          width_(Branched || options.recurrent.weight ? layer.columns
                                                      : group_width<T>(batch, layer.columns, options.input, layer.shared, threads)),
          length_(window_length(batch, layer, options.longest())),
          input_(options.input, layer.columns, width_, layer.shared), recurrent_(options.recurrent, layer.columns, width_, layer.shared),
          decays_(layer) {}

    // Spikes of every sample, sorted.
    std::vector<std::vector<Released>> run() {
        const Split parts = split(batch_, layer_.columns, std::min(threads_, std::max(batch_.size, 1)));
        const int groups = layer_.columns / width_;
        std::vector<std::vector<Released>> found(static_cast<size_t>(batch_.size) * groups), all(batch_.size);
        parallel_for(parts.chunks() * groups, threads_, [&](int job) {
            const int chunk = job % parts.chunks(), group = job / parts.chunks();
            Worker worker(*this, group);
            for (int b = parts.samples[chunk]; b < parts.samples[chunk + 1]; ++b)
                worker.sample(b, found[static_cast<size_t>(b) * groups + group]);
        });
        parallel_for(batch_.size, threads_, [&](int b) {
            const auto from = found.begin() + static_cast<size_t>(b) * groups;
            all[b] = std::move(*from);
            for (int g = 1; g < groups; ++g) all[b].insert(all[b].end(), from[g].begin(), from[g].end());
            std::sort(all[b].begin(), all[b].end(), [](const Released& x, const Released& y) {
                return x.time != y.time ? x.time < y.time : x.unit < y.unit;
            });
        });
        return all;
    }

private:
    static constexpr double kClose = sizeof(T) == 8 ? 1e-12 : Branched ? 1e-8 : 1e-6;
    static constexpr int64_t kMostOnTheirWay = 1 << 24;  // whole numbers up to here are exact in float32

    using Currents = std::conditional_t<Branched, std::vector<double>, double>;  // of a neuron

    // A neuron at a point in time.
    struct Cell {
        double u;
        Currents i;
        double now;
        double free = -INFINITY;  // the voltage is held until then
        int64_t last = -1;        // spike: its place in the output
        int passed = 0;           // arrivals of the window that are behind it
    };

    // What the arrivals of a window make of a neuron's current and voltage at its end, the most that they add to the voltage within
    // it, and the newest of them (-1: none): each sending knows the arrival before it.
    struct alignas(4 * sizeof(T)) Record {
        T current, voltage, bound, newest;
    };

    // An event, or a spike of the layer itself, on its way.
    struct Sent {
        double time;
        typename DelayedRows<T>::Row row;
        T size;
        T least;  // of the delays that count
    };

    struct Arrival {
        double time;
        T size;
        int branch;
    };

    // Neurons that are not done with by the sums of the window.
    struct Replay {
        Cell from, to;                  // certain; as far as it is known
        std::vector<Arrival> arrivals;  // by their times, then in the order in which they were sent
        bool spikes = false;            // of a recurrent layer: `to` is just after a spike that is not certain yet
        Released spike{};
    };

    struct Worker {
        DelayedForward& all;
        const Layer<T>& layer;
        const Options<T>& options;
        const int group, begin, width;
        const int num;  // of neurons
        const bool recurrent;

        // of the sample at hand
        std::vector<Released>* out = nullptr;
        int sample_ = 0, window = 0;
        double start = 0, end = 0;  // of the window
        Windows windows{1, 1};
        Array<T> u, i, next_u, next_i, x, y, k;  // states at both ends of the window, and the factors between them
        std::vector<Cell> cells;                 // only free and last: the rest is in u and i
        std::vector<uint32_t> held;              // lanes of each vector whose voltage is held at the start of the window

        // arrivals: a ring of windows and one more, and a ring of what was sent
        int ring = 1;
        Array<Record> records;
        std::vector<Sent> sent;
        Array<T> before;  // the arrival before this one, for each sending and neuron
        int64_t oldest = 0, newest = 0;

        // of the window at hand
        std::vector<Replay> replays;
        std::vector<Arrival> sorted;
        std::vector<int> replayed, reached;
        std::vector<char> is_replayed, is_reached;
        double certain = 0;  // no spike to come arrives before this
        int64_t uncounted = 0;
        struct Seen {
            int64_t newest = -1, after = -1;  // of a cell's arrivals in the window that are replayed, and of those after the trial
        };
        std::vector<Seen> seen;
        BranchedNeuron soma;
        Currents later{};  // room for those at the end of a stretch

        Worker(DelayedForward& parent, int g)
            : all(parent), layer(parent.layer_), options(parent.options_), group(g), begin(g * parent.width_), width(parent.width_),
              num(std::min(width, parent.options_.neurons(layer.num) - begin)), recurrent(parent.options_.recurrent.weight),
              u(width + (Branched ? kLanes<T> : 0)), i(u), next_u(u), next_i(u), x(u), y(u), k(u), cells(width), held(width / kLanes<T>), sent(64),
              before(64 * static_cast<size_t>(width)), replays(width), is_replayed(width),
              is_reached(width), seen(width), soma(options.branches) {
            ring = ring_of(all.batch_, all.length_, options.longest());
            records.assign(static_cast<size_t>(ring + 1) * width + kLanes<T>, Record{0, 0, 0, -1});
            if constexpr (Branched) later.resize(options.branches);
        }

        int branches() const { return Branched ? options.branches : 1; }
        static double& of(Currents& currents, int k) {
            if constexpr (Branched) return currents[k];
            else return currents;
        }
        static double total(const Currents& currents) {
            if constexpr (Branched) return std::accumulate(currents.begin(), currents.end(), 0.0);
            else return currents;
        }

        void sample(int b, std::vector<Released>& spikes_of_sample) {
            const Batch<T>& batch = all.batch_;
            sample_ = b, out = &spikes_of_sample, windows = Windows(batch.duration[b], all.length_);
            oldest = newest = 0;
            std::fill(held.begin(), held.end(), 0);
            for (int c = 0; c < width; ++c) {
                const int n = begin + c;
                cells[c] = {}, u[c] = i[c] = 0;
                if (n < layer.num) i[c] = T(options.current(b, n));
                if (c >= num) continue;
                u[c] = T(options.voltage(b, n) - layer.neurons[n].bias);
                if (options.held(b, n) <= 0) continue;
                u[c] = layer.rise[n], cells[c].free = options.held(b, n), held[c / kLanes<T>] |= 1u << c % kLanes<T>;
            }
            for (int c = 0; c < width; c += kLanes<T>) {
                const Decay<Vec<T>> f = decay<T>(splat(T(windows.length)), load(&layer.p[begin + c]), load(&layer.q[begin + c]));
                store(&x[c], f.x), store(&y[c], f.y), store(&k[c], f.k);
            }
            int64_t e = batch.offsets[b];
            const int64_t stop = batch.counted(b);
            for (window = 0; window < windows.count; ++window) {
                start = windows.start(window), end = windows.end(window);
                while (oldest < newest && place(oldest).time + options.longest() + windows.length < start) ++oldest;
                certain = start + options.recurrent.shortest;
                const int64_t from = newest;
                for (; e < stop && (batch.times[e] < end || window + 1 == windows.count); ++e)
                    send({batch.times[e], all.row(group, batch.units[e]), batch.value(e), shortest_to_come<T>(batch.times[e])});
                scatter(from, newest, false);
                for (int c = 0; c < num; c += kLanes<T>) settle(c);
                if (all.final_.voltage && window + 1 == windows.count)  // the sums are a rounding away from the end
                    for (int c = 0; c < num; ++c)
                        if (!is_replayed[c]) replay(c);
                if (recurrent) make_certain();
                finish();
            }
            std::fill_n(rest(), width, Record{0, 0, 0, -1});
            count();
            for (int c = 0; c < std::min(width, layer.num - begin); ++c)
                if ((c < num && !std::isfinite(u[c])) || !std::isfinite(i[c])) not_finite(sample_, begin + c % num);
            if (all.final_.voltage) keep(static_cast<size_t>(b) * layer.num);
        }

        void keep(size_t at) {
            for (int c = 0; c < std::min(width, layer.num - begin); ++c) {
                const int n = begin + c;
                all.final_.current[at + n] = i[c];
                if (c >= num) continue;
                all.final_.voltage[at + n] = T(u[c] + layer.neurons[n].bias);
                all.final_.held[at + n] = T(std::max(cells[c].free - windows.duration, 0.0));
            }
        }

        Sent& place(int64_t id) { return sent[id & (sent.size() - 1)]; }
        T* before_of(int64_t id) { return &before[static_cast<size_t>(id & (sent.size() - 1)) * width]; }
        Record& record(int c) { return records[static_cast<size_t>(window & (ring - 1)) * width + c]; }

        Record* rest() { return &records[static_cast<size_t>(ring) * width]; }  // arrivals that do not count, as after the trial

        void send(const Sent& one) {
            if (newest - oldest == static_cast<int64_t>(sent.size())) make_room();
            place(newest++) = one;
        }

        void make_room() {
            const size_t room = 2 * sent.size();
            if (static_cast<int64_t>(room) > kMostOnTheirWay)
                throw Error("sample " + std::to_string(sample_) +
                            ": more than 2^24 events are on their way at once; use shorter delays or fewer events");
            std::vector<Sent> more(room);
            Array<T> more_before(room * width);
            for (int64_t id = oldest; id < newest; ++id) {
                more[id & (room - 1)] = place(id);
                std::copy_n(before_of(id), width, &more_before[static_cast<size_t>(id & (room - 1)) * width]);
            }
            sent.swap(more), before.swap(more_before);
        }

        // Adds the arrivals of what was sent to the records. Some vectors of synapses at a time: what they are worth, then the sums,
        // because the one waits for the processor's arithmetic and the other for its memory.
        void scatter(int64_t from, int64_t to, bool note_reached) {
            if (all.input_.sparse || all.recurrent_.sparse) {
                for (int64_t id = from; id < to; ++id)
                    for (int v = 0; v < place(id).row.vectors; ++v) choose(id, v, note_reached);
                flush(note_reached);
                return;
            }
            for (int v = 0; v < width / kLanes<T>; ++v) {  // the same neurons in all rows
                for (int64_t id = from; id < to; ++id) choose(id, v, note_reached);
                flush(note_reached);
            }
        }

        void choose(int64_t id, int v, bool note_reached) {
            const Sent& one = place(id);
            chosen[num_chosen++] = {one.row.vector(v), one.row.neurons + v * kLanes<T>, before_of(id) + v * kLanes<T>, T(one.time - start), one.size,
                                    one.least, T(id & (kMostOnTheirWay - 1)), v};
            if (num_chosen == kAtOnce) flush(note_reached);
        }

        void flush(bool note_reached) {
            if (windows.length <= layer.brief) weigh<true>(note_reached);
            else weigh<false>(note_reached);
            add();
            num_chosen = 0;
        }

        // Vectors of synapses: where they are, what they are worth, and to which records.
        static constexpr int kAtOnce = 16;
        using Int = typename DelayedRows<T>::Int;
        struct Chosen {
            const T* synapses;
            const Int* neurons;
            T* earlier;  // of `before`
            T time, size, least, id;
            int vector;
        } chosen[kAtOnce];
        int num_chosen = 0;
        alignas(64) Four<T> weighed[kAtOnce][kLanes<T>];
        alignas(64) Int to_record[kAtOnce][kLanes<T>];

        template <bool Brief>
        __attribute__((noinline)) void weigh(bool note_reached) {
            if (num_chosen == 0) return;
            constexpr int kTerms = Decays<T>::kTerms;
            const int c = layer.shared ? 0 : chosen[0].vector * kLanes<T>;  // then rows are not sparse, and all are of these neurons
            const T* const coefficients = all.decays_.of(begin + c);
            Vec<T> of_y[kTerms], of_k[kTerms];
            for (int n = 0; n < kTerms; ++n) of_y[n] = load(coefficients + n * kLanes<T>), of_k[n] = load(coefficients + (kTerms + n) * kLanes<T>);
            const Vec<T> length = splat(T(windows.length)), rate = splat(T(1 / windows.length)), last = splat(T(windows.count - window));
            const Vec<T> p = load(&layer.p[begin + c]), q = load(&layer.q[begin + c]);
            const Vec<T> s_peak = load(&layer.s_peak[begin + c]), k_peak = load(&layer.k_peak[begin + c]);
            const Int in_ring = ring - 1, first = window, wide = width;
            for (int i = 0; i < num_chosen; ++i) {
                const Chosen& one = chosen[i];
                IntVec<T> neuron;
                std::memcpy(&neuron, one.neurons, sizeof neuron);
                const Vec<T> delay = load(one.synapses + kLanes<T>), at = one.time + delay;
                const Vec<T> after = at * rate;  // windows from now on
                const IntVec<T> counts = (after < last) & (delay >= one.least), whole = __builtin_convertvector(after, IntVec<T>);
                const Vec<T> left = (__builtin_convertvector(whole, Vec<T>) + T(1)) * length - at;
                Vec<T> fade, effect, most;
                if constexpr (Brief) {
                    fade = of_y[0], effect = of_k[0];
#pragma GCC unroll 16
                    for (int n = 1; n < kTerms; ++n) fade = fade * left + of_y[n], effect = effect * left + of_k[n];
                    most = effect;
                } else {
                    const Decay<Vec<T>> f = decay<T>(max<T>(left, Vec<T>{}), p, q);
                    fade = f.y, effect = f.k, most = select<T>(left < s_peak, effect, k_peak);
                }
                const Vec<T> size = one.size * load(one.synapses);
                interleave<T>(size * fade, size * effect, max<T>(size * most, Vec<T>{}), Vec<T>{}, weighed[i]);
                const IntVec<T> index = (counts ? (whole + first) & in_ring : IntVec<T>{} + (in_ring + 1)) * wide + neuron;
                std::memcpy(to_record[i], &index, sizeof index);
                if (!note_reached) continue;
                const bool to_the_end = all.final_.voltage && window + 1 == windows.count;  // rounding must not decide what counts
                for (uint32_t lanes = to_the_end ? (uint32_t(1) << kLanes<T>) - 1 : bits<T>(counts & (whole == 0)); lanes; lanes &= lanes - 1)
                    note(static_cast<int>(neuron[__builtin_ctz(lanes)]));
            }
        }

        // That a spike reaches a cell within the window.
        void note(int cell) {
            const int c = Branched ? cell % num : cell;
            if (cell < std::min(width, layer.num - begin) && !is_reached[c]) is_reached[c] = 1, reached.push_back(c);
        }

        __attribute__((noinline)) void add() {
            Four<T>* const all_records = reinterpret_cast<Four<T>*>(records.data());
            for (int i = 0; i < num_chosen; ++i) {
                T* const earlier = chosen[i].earlier;
                const Four<T>* const values = weighed[i];
                const Int* const places = to_record[i];
                const T self = chosen[i].id;
#pragma GCC unroll 16
                for (int l = 0; l < kLanes<T>; ++l) {
                    Four<T>& record = all_records[places[l]];
                    Four<T> sum = record;
                    earlier[l] = sum[3];
                    sum += values[place_of<T>(l)];
                    sum[3] = self;
                    record = sum;
                }
            }
        }

        // A vector of neurons to the end of the window: by its sums where the bounds stay below the threshold.
        void settle(int c) {
            const Vec<T> u0 = load(&u[c]), fade = load(&x[c]);
            Vec<T> u1, strongest, bound;
            for (int b = 0, at = c; b < branches(); ++b, at += num) {
                Vec<T> current, voltage, more;
                part<T>(reinterpret_cast<const Four<T>*>(&record(at)), current, voltage, more);
                const Vec<T> i0 = load(&i[at]), i1 = i0 * load(&y[at]), top = select<T>(i0 > T(0), i0, i1);
                u1 = (b ? u1 : u0 * fade) + i0 * load(&k[at]) + voltage;
                bound = b ? bound + more : more, strongest = b ? strongest + top : top;
                store(&next_i[at], i1 + current);
            }
            // Without arrivals a voltage relaxes towards the current, so it stays below what the strongest one would make of it.
            const Vec<T> most = u0 + max<T>(strongest - u0, Vec<T>{}) * (T(1) - fade) + bound;
            store(&next_u[c], u1);
            for (uint32_t lanes = held[c / kLanes<T>] | not_less<T>(most, load(&layer.gap[begin + c])); lanes; lanes &= lanes - 1) {
                const int n = c + __builtin_ctz(lanes);
                if (n < num) replay(n);
            }
        }

        // The same for one neuron.
        void settle_one(int c) {
            T u1 = u[c] * x[c], strongest = 0, bound = 0;
            for (int b = 0, at = c; b < branches(); ++b, at += num) {
                const Record& from = record(at);
                const T i1 = i[at] * y[at];
                u1 = u1 + i[at] * k[at] + from.voltage, bound += from.bound, strongest += i[at] > 0 ? i[at] : i1;
                next_i[at] = i1 + from.current;
            }
            const T most = u[c] + std::max(strongest - u[c], T(0)) * (1 - x[c]) + bound;
            next_u[c] = u1;
            if (is_replayed[c] || !(most < layer.gap[begin + c])) replay(c);
        }

        // One neuron from arrival to arrival; in a recurrent layer up to its next spike.
        void replay(int c) {
            Replay& one = replays[c];
            if (!is_replayed[c]) {
                is_replayed[c] = 1, replayed.push_back(c);
                one.from = cells[c], one.from.u = u[c], one.from.now = start, one.from.passed = 0;
                one.from.i = later;  // as many as there are branches
                for (int b = 0, at = c; b < branches(); ++b, at += num) of(one.from.i, b) = i[at], seen[at] = {};
                one.arrivals.clear();
            }
            collect(c, one);
            one.spikes = false, one.to = one.from;
            while (one.to.passed < static_cast<int>(one.arrivals.size())) {
                const Arrival& arrival = one.arrivals[one.to.passed];
                flow(one, begin + c, arrival.time);
                if (one.spikes) return;
                of(one.to.i, arrival.branch) += arrival.size, ++one.to.passed;
                if (arrival.time <= certain) one.from = one.to;
            }
            flow(one, begin + c, end);
        }

        // Adds the arrivals of the window at neuron c that were sent since it was last replayed.
        void collect(int c, Replay& one) {
            const size_t known = one.arrivals.size();
            for (int b = 0, at = c; b < branches(); ++b, at += num) {
                const size_t first = one.arrivals.size();
                seen[at].newest = collect(record(at).newest, at, b, seen[at].newest, one.arrivals);
                if (all.final_.voltage && window + 1 == windows.count)  // rounding may have put some of them after the trial
                    seen[at].after = collect(rest()[at].newest, at, b, seen[at].after, one.arrivals);
                std::reverse(one.arrivals.begin() + first, one.arrivals.end());
            }
            sort(one.arrivals, known);
        }

        // Those of a cell, from the newest one on, up to one that is there already.
        int64_t collect(T newest_of, int c, int branch, int64_t known, std::vector<Arrival>& list) {
            for (T newer = newest_of; newer >= 0 && static_cast<int64_t>(newer) != known && is_kept(static_cast<int64_t>(newer));) {
                const int64_t id = static_cast<int64_t>(newer);
                const Sent& from = place(id);
                const int synapse = all.input_.sparse || all.recurrent_.sparse ? from.row.find(c) : c;
                const T delay = from.row.delay(synapse);
                const double at = from.time + double(delay);
                if (at < windows.duration && delay >= from.least) list.push_back({std::clamp(at, start, end), from.size * from.row.weight(synapse), branch});
                newer = before_of(id)[synapse];
            }
            return static_cast<int64_t>(newest_of);
        }

        // What does not count is noted down for ever, what was sent is not.
        bool is_kept(int64_t id) const { return ((newest - 1 - id) & (kMostOnTheirWay - 1)) < newest - oldest; }

        // By their times; the first `known` are sorted. Each arrival's place is the number of those before it: no branches to mispredict.
        void sort(std::vector<Arrival>& list, size_t known) {
            constexpr int kMost = 64;
            const size_t count = list.size();
            const auto before_it = [](const Arrival& a, const Arrival& b) { return a.time < b.time; };
            if (known > 0 && count - known < 8) {
                for (size_t a = known; a < count; ++a)
                    for (size_t b = a; b > 0 && before_it(list[b], list[b - 1]); --b) std::swap(list[b], list[b - 1]);
                return;
            }
            if (count > kMost) return std::stable_sort(list.begin(), list.end(), before_it);
            alignas(64) T times[kMost];
            std::fill_n(times, kMost, T(INFINITY));
            for (size_t a = 0; a < count; ++a) times[a] = T(list[a].time - start);
            sorted.resize(count);
            for (size_t a = 0; a < count; ++a) {
                int place = 0;
                for (size_t b = 0; b < count; b += kLanes<T>) {
                    const Vec<T> others = load(times + b);
                    const uint32_t earlier = bits<T>(others < times[a]), equal = bits<T>(others == times[a]);
                    const uint32_t sent_before = b + kLanes<T> <= a ? ~0u : b >= a ? 0u : (1u << (a - b)) - 1;
                    place += __builtin_popcount(earlier | (equal & sent_before));
                }
                sorted[place] = list[a];
            }
            list.swap(sorted);
        }

        // One neuron up to `until`, without arrivals; in a recurrent layer up to its next spike.
        void flow(Replay& one, int n, double until) {
            const Neuron& neuron = layer.neurons[n];
            Cell& cell = one.to;
            while (cell.now < until) {
                const bool is_held = cell.now < cell.free;
                const double stop = is_held ? std::min(until, cell.free) : until, h = stop - cell.now;
                double strongest = 0;
                std::conditional_t<Branched, Currents&, Currents> i1 = later;
                const double u1 = passed(cell, n, h, i1, strongest);
                if (is_held) {
                    cell.i = i1, cell.now = stop;
                    if (stop == cell.free && cell.last >= 0) (*out)[cell.last].release_current = total(cell.i);
                    continue;
                }
                // it relaxes towards the current, so it stays below the tangent of what the strongest one would make of it
                const double reach = cell.u + std::max(strongest - cell.u, 0.0) * neuron.p * h;
                if (!(reach < neuron.gap)) {
                    if (!std::isfinite(cell.u) || !std::isfinite(total(cell.i))) not_finite(sample_, n);
                    const double wait = crossing(cell, n, h, u1, i1);
                    if (wait >= 0) {
                        fire(one, n, std::min(cell.now + wait, until));
                        if (one.spikes) return;
                        continue;
                    }
                }
                cell.u = u1, cell.i = i1, cell.now = until;
            }
        }

        // The voltage h seconds later without a spike, and the currents i1; their sum stays below `strongest` until then.
        double passed(Cell& cell, int n, double h, Currents& i1, double& strongest) const {
            double u1 = 0;
            for (int b = 0, at = n; b < branches(); ++b, at += num) {
                const Decay<double> f = h < layer.brief ? layer.series[layer.shared ? 0 : at].factors(h) : layer.neurons[at].decay(h);
                const double i0 = of(cell.i, b);
                of(i1, b) = i0 * f.y;
                u1 = (b ? u1 : cell.u * f.x) + i0 * f.k, strongest += i0 > 0 ? i0 : of(i1, b);
            }
            return u1;
        }

        // Seconds until a neuron first reaches its threshold within h seconds, or -1; its currents become those there.
        double crossing(Cell& cell, int n, double h, double u1, const Currents& i1) {
            if constexpr (Branched) {
                soma.be([&](int b) { return &layer.neurons[b * num + n]; });
                soma.voltage = cell.u, soma.currents() = cell.i;
                const double wait = soma.crossing(h, kClose);
                if (wait >= 0) soma.flow(wait, cell.i);
                return wait;
            } else {
                return layer.neurons[n].crossing(cell.u, cell.i, u1, i1, h, kClose);
            }
        }

        void fire(Replay& one, int n, double time) {
            const double current = total(one.to.i);
            one.to.u = layer.neurons[n].rise, one.to.now = time, one.to.free = time + double(options.refractory[n]), one.to.last = -1;
            one.spike = {time, current, n, one.to.free == time ? current : 0};
            if (recurrent) one.spikes = true;
            else emit(one);
        }

        void emit(Replay& one) {
            one.to.last = static_cast<int64_t>(out->size());
            out->push_back(one.spike);
            if (++uncounted > 1 << 12) count();
        }

        // The spikes of a recurrent layer in the window, from the first to the last.
        void make_certain() {
            while (true) {
                double first = INFINITY;
                for (const int c : replayed)
                    if (replays[c].spikes) first = std::min(first, replays[c].spike.time);
                if (first == INFINITY) return;
                certain = first + options.recurrent.shortest;
                const int64_t from = newest;
                for (const int c : replayed) {
                    Replay& one = replays[c];
                    if (!one.spikes || one.spike.time > certain) continue;
                    emit(one);
                    one.from = one.to;
                    send({one.spike.time, all.recurrent_.row(0, c), T(1), T(0)});
                    is_reached[c] = 1, reached.push_back(c);  // it goes on
                }
                scatter(from, newest, true);
                for (const int c : reached) is_reached[c] = 0, settle_one(c);
                reached.clear();
            }
        }

        // Closes the window.
        void finish() {
            for (const int c : replayed) {
                const Cell& cell = replays[c].to;
                next_u[c] = T(cell.u), cells[c] = cell;
                for (int b = 0, at = c; b < branches(); ++b, at += num) next_i[at] = T(of(cells[c].i, b));
                const uint32_t lane = 1u << c % kLanes<T>;
                held[c / kLanes<T>] = cell.free > end ? held[c / kLanes<T>] | lane : held[c / kLanes<T>] & ~lane;
                is_replayed[c] = 0;
            }
            replayed.clear();
            std::fill_n(&record(0), width, Record{0, 0, 0, -1});
            u.swap(next_u), i.swap(next_i);
        }

        void count() {
            if ((all.total_ += uncounted) > all.max_spikes_) throw StormError(std::to_string(sample_));
            uncounted = 0;
        }
    };

    // Of an input unit, or after these of a neuron of the layer: a spike from before the trial.
    typename DelayedRows<T>::Row row(int group, int unit) const { return unit < batch_.inputs ? input_.row(group, unit) : recurrent_.row(group, unit - batch_.inputs); }

    const Batch<T>& batch_;
    const Layer<T>& layer_;
    const Options<T>& options_;
    const int64_t max_spikes_;
    const int threads_;
    const Final<T> final_;
    const int width_;       // neurons that are looked at together: all of them if they hear each other
    const double length_;   // windows are not longer
    const DelayedRows<T> input_, recurrent_;
    const Decays<T> decays_;
    std::atomic<int64_t> total_{0};
};

}  // namespace eventnet
