// Spikes of neurons each of which has its own order of arrivals: delays per synapse or per target, refractory periods.
//
// Time goes in windows. An event sends its arrivals to the windows they fall into; a window's arrivals are sorted by neuron and
// time, and each neuron goes through its own, one stretch after the other. A window ends early where one of its spikes may come back.
#pragma once

#include "lif_forward.h"

namespace eventnet {

// Weights (in, N) and delays with the strides of their kind: per synapse, per source or per target.
template <class T>
struct Delayed {
    const T* weight = nullptr;
    const T* delay = nullptr;
    int num = 0;            // of neurons
    int by_source = 0, by_target = 0;
    double shortest = INFINITY, longest = 0;

    Delayed() = default;
    Delayed(const T* w, int inputs, int n, const T* d, int rows, int columns)
        : weight(w), delay(d), num(n), by_source(rows > 1 ? columns : 0), by_target(columns > 1 ? 1 : 0) {
        for (int k = 0; k < rows * columns; ++k) shortest = std::min<double>(shortest, d[k]), longest = std::max<double>(longest, d[k]);
        if (inputs == 0 || n == 0) shortest = 0;
    }

    T weight_of(int j, int n) const { return weight[static_cast<size_t>(j) * num + n]; }
    double delay_of(int j, int n) const { return delay[static_cast<size_t>(j) * by_source + n * by_target]; }
};

// What only this kernel knows of a layer.
template <class T>
struct Options {
    Delayed<T> input, recurrent;  // recurrent.weight is null where there is none
    Parameter<T> refractory, voltage, current;  // voltage relative to the bias, at time 0
};

struct Released {
    double time, current;
    int unit;
    double release_current = 0, release_voltage = 0;  // at the end of the refractory period: the voltage that it would have had
};

template <class T>
class DelayedForward {
public:
    DelayedForward(const Batch<T>& batch, const Layer<T>& layer, const Options<T>& options, int64_t max_spikes)
        : batch_(batch), layer_(layer), options_(options), max_spikes_(max_spikes),
          length_(0.3 * std::min(layer.shortest_tau(), 1.0)) {}

    std::vector<std::vector<Released>> run(int threads) {
        const Split parts = split(batch_, layer_.columns, std::min(threads, std::max(batch_.size, 1)));
        std::vector<std::vector<Released>> found(batch_.size);
        parallel_for(parts.chunks(), threads, [&](int chunk) {
            Worker worker(*this);
            for (int b = parts.samples[chunk]; b < parts.samples[chunk + 1]; ++b) worker.sample(b, found[b]);
        });
        return found;
    }

private:
    static constexpr double kClose = sizeof(T) == 4 ? 1e-6 : 1e-12;

    struct Cell {
        double u, i, now;
        double free;     // the voltage is held until then,
        double shadow;   // and would be this if it were not
        int64_t last;    // spike
    };

    struct Entry {
        double time;
        T size;
        int neuron;
    };

    struct Worker {
        DelayedForward& all;
        const Layer<T>& layer;
        const Options<T>& options;
        std::vector<Cell> cells, before;
        std::vector<std::vector<Entry>> windows;  // a ring of arrivals to come
        std::vector<Entry> taken, sorted;  // the arrivals of the stretch at hand; by neuron and time
        std::vector<int> first, place;     // of each neuron in sorted
        size_t heap = 0;                   // the window whose arrivals are a heap: the one at hand
        double reach = INFINITY;           // how long a stretch is worth trying
        std::vector<Released>* out = nullptr;
        int sample_ = 0;
        double duration = 0, foresight = INFINITY;
        int64_t uncounted = 0;

        explicit Worker(DelayedForward& parent) : all(parent), layer(parent.layer_), options(parent.options_), cells(parent.layer_.num) {
            double trial = 0;  // what arrives later does not count
            for (int b = 0; b < parent.batch_.size; ++b) trial = std::max(trial, parent.batch_.duration[b]);
            const double longest = std::min(std::max(options.input.longest, options.recurrent.longest), trial);
            windows.resize(static_cast<size_t>(longest / all.length_) + 3);
        }

        void sample(int b, std::vector<Released>& spikes) {
            const Batch<T>& batch = all.batch_;
            sample_ = b, out = &spikes, duration = batch.duration[b], reach = all.length_;
            for (auto& window : windows) window.clear();
            for (int n = 0; n < layer.num; ++n) cells[n] = {double(options.voltage[n]), double(options.current[n]), 0, 0, 0, -1};
            int64_t e = batch.offsets[b];
            const int64_t stop = batch.counted(b);
            double now = 0;
            for (size_t w = 0; now < duration || w == 0; ++w) {
                const double end = std::min((w + 1) * all.length_, duration);
                for (; e < stop && (batch.times[e] < end || end == duration); ++e) send(options.input, batch.times[e], batch.units[e], batch.value(e), w);
                auto& arrivals = windows[w % windows.size()];
                if (options.recurrent.weight) std::make_heap(arrivals.begin(), arrivals.end(), later);  // more will come
                heap = w;
                do now = advance(arrivals, now, end, w);
                while (now < end);
                auto& next = windows[(w + 1) % windows.size()];  // rounding may have put something into a window too early
                next.insert(next.end(), arrivals.begin(), arrivals.end());
                arrivals.clear();
            }
            std::sort(spikes.begin(), spikes.end(), [](const Released& a, const Released& b) { return a.time != b.time ? a.time < b.time : a.unit < b.unit; });
            count();
            for (int n = 0; n < layer.num; ++n)
                if (!std::isfinite(cells[n].u) || !std::isfinite(cells[n].i)) not_finite(sample_, n);
        }

        // The arrivals of one event, into their windows, of which w is at hand.
        void send(const Delayed<T>& synapses, double time, int unit, T value, size_t w) {
            for (int n = 0; n < layer.num; ++n) {
                const double at = time + synapses.delay_of(unit, n);
                if (at >= duration) continue;
                const size_t into = std::max(static_cast<size_t>(at / all.length_), w);
                auto& window = windows[into % windows.size()];
                window.push_back({at, value * synapses.weight_of(unit, n), n});
                if (into == heap && options.recurrent.weight) std::push_heap(window.begin(), window.end(), later);
            }
        }

        static bool later(const Entry& a, const Entry& b) { return a.time > b.time; }

        // Takes the arrivals up to `end` out of those of the window.
        void take(std::vector<Entry>& arrivals, double end) {
            taken.clear();
            if (options.recurrent.weight) {
                for (; !arrivals.empty() && arrivals.front().time <= end; arrivals.pop_back()) {
                    std::pop_heap(arrivals.begin(), arrivals.end(), later);
                    taken.push_back(arrivals.back());
                }
            } else {
                const auto rest = std::partition(arrivals.begin(), arrivals.end(), [&](const Entry& a) { return a.time > end; });
                taken.assign(rest, arrivals.end());
                arrivals.erase(rest, arrivals.end());
            }
            sort(taken);
        }

        // All neurons from `start` to `end`, or as far as is worth trying, or to where one of their spikes may come back.
        double advance(std::vector<Entry>& arrivals, double start, double end, size_t w) {
            const bool recurrent = options.recurrent.weight;
            const size_t known = out->size();
            if (recurrent) {
                before = cells;
                end = std::min(end, start + reach);
                reach = std::min(2 * reach, all.length_);
            }
            take(arrivals, end);
            foresight = end;
            through(end);
            if (foresight < end) {
                const double limit = std::max(foresight, start);
                reach = std::max(2 * (limit - start), 1e-6 * all.length_);
                const std::vector<Released> seen(out->begin() + known, out->end());
                out->resize(known);
                uncounted -= static_cast<int64_t>(seen.size());
                cells = before;
                through(limit);
                for (const Released& spike : seen) {  // without delay a spike may be at the very end, where rounding decides
                    const auto same = [&](const Released& other) { return other.unit == spike.unit; };
                    if (spike.time != limit || std::any_of(out->begin() + known, out->end(), same)) continue;
                    fire(cells[spike.unit], spike.unit, limit, cells[spike.unit].i);
                }
                end = limit;
                for (const Entry& a : taken)
                    if (a.time > end) arrivals.push_back(a), std::push_heap(arrivals.begin(), arrivals.end(), later);
            }
            if (recurrent)
                for (size_t k = known; k < out->size(); ++k) send(options.recurrent, (*out)[k].time, (*out)[k].unit, T(1), w);
            return end;
        }

        void sort(const std::vector<Entry>& arrivals) {
            first.assign(layer.num + 1, 0);
            for (const Entry& a : arrivals) ++first[a.neuron + 1];
            for (int n = 0; n < layer.num; ++n) first[n + 1] += first[n];
            sorted.resize(arrivals.size());
            place.assign(first.begin(), first.end() - 1);
            for (const Entry& a : arrivals) {
                int k = place[a.neuron]++;
                for (; k > first[a.neuron] && sorted[k - 1].time > a.time; --k) sorted[k] = sorted[k - 1];
                sorted[k] = a;
            }
        }

        void through(double end) {
            for (int n = 0; n < layer.num; ++n) {
                Cell& cell = cells[n];
                for (int k = first[n]; k < first[n + 1] && sorted[k].time <= end; ++k) {
                    flow(cell, n, sorted[k].time);
                    cell.i += sorted[k].size;
                }
                flow(cell, n, end);
            }
        }

        // One neuron up to `until`, without arrivals.
        void flow(Cell& cell, int n, double until) {
            const Neuron& neuron = layer.neurons[n];
            while (cell.now < until) {
                const bool held = cell.now < cell.free;
                const double end = held ? std::min(until, cell.free) : until, h = end - cell.now;
                const Decay<double> f = h < layer.brief ? layer.series[layer.shared ? 0 : n].factors(h) : neuron.decay(h);
                const double u1 = cell.u * f.x + cell.i * f.k, i1 = cell.i * f.y;
                if (held) {
                    cell.shadow = cell.shadow * f.x + cell.i * f.k;
                    cell.i = i1, cell.now = end;
                    if (end == cell.free) release(cell);
                    continue;
                }
                // a voltage that rises is concave and stays below its tangent; towards rest it rises no faster than exponentially
                const double reach = cell.u + std::max(std::max(cell.i, 0.0) - cell.u, 0.0) * neuron.p * h;
                if (!(reach < neuron.gap)) {
                    if (!std::isfinite(cell.u) || !std::isfinite(cell.i)) not_finite(sample_, n);
                    double current = cell.i;
                    const double wait = neuron.crossing(cell.u, current, u1, i1, h, kClose);
                    if (wait >= 0) {
                        fire(cell, n, std::min(cell.now + wait, until), current);
                        if (cell.now >= foresight) return;  // the window will end there
                        continue;
                    }
                }
                cell.u = u1, cell.i = i1, cell.now = until;
            }
        }

        void fire(Cell& cell, int n, double time, double current) {
            const Neuron& neuron = layer.neurons[n];
            cell = {neuron.rise, current, time, time + double(options.refractory[n]), neuron.gap, static_cast<int64_t>(out->size())};
            out->push_back({time, current, n});
            if (cell.free == time) release(cell);
            if (options.recurrent.weight) foresight = std::min(foresight, time + options.recurrent.shortest);
            if (++uncounted > 1 << 12) count();
        }

        void release(const Cell& cell) {
            if (cell.last < 0) return;
            (*out)[cell.last].release_current = cell.i, (*out)[cell.last].release_voltage = cell.shadow;
        }

        void count() {
            if ((all.total_ += uncounted) > all.max_spikes_) throw StormError(std::to_string(sample_));
            uncounted = 0;
        }
    };

    const Batch<T>& batch_;
    const Layer<T>& layer_;
    const Options<T>& options_;
    const int64_t max_spikes_;
    const double length_;  // of a window
    std::atomic<int64_t> total_{0};
};

}  // namespace eventnet
