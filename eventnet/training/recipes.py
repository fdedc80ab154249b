"""The named recipes: ``RECIPES`` and ``find(name)``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from eventnet.training.continual import ContinualRecipe
from eventnet.training.errors import RecipeError, nearest
from eventnet.training.recipe import CONNECTIONS, GatedRecipe, Recipe, SpikingRecipe

__all__ = ["RECIPES", "find"]

_DIGITS = SpikingRecipe(
    name="digits",
    summary="8x8 handwritten digits that come with scikit-learn; under a minute (the demo)",
    data="digits",
    hidden=(400,),
    readout="mean",
    tau_syn=20e-3,
    readout_tau_syn=10e-3,
    logit_scale=5.0,
    init_mean=(0.0, 0.0),
    init_std=(1.0, 0.1),
    init_firing=0.35,
    input_dropout=0.05,
    lift=0.01,
    learning_rate=5e-3,
    learning_rate_decay=0.97,
    batch_size=32,
    epochs=30,
)

# Wunderlich & Pehle 2021: 98.1 +- 0.2 % on the test set.
_YINYANG = SpikingRecipe(
    name="yinyang",
    summary="points in a Yin-Yang figure, read from the first output spike (Wunderlich & Pehle 2021)",
    data="yinyang",
    hidden=(200,),
    readout="first_spike",
    init_mean=(1.5, 0.93),
    init_std=(0.78, 0.1),
    learning_rate=5e-3,
    learning_rate_decay=0.95,
    batch_size=32,
    epochs=100,
)

# DelGrad (Göltz et al. 2025) has 96.7 % on the test set without delays and 98.2 % with one per synapse.
_YINYANG30 = _YINYANG.changed(hidden=(30,), lift=5e-3, learning_rate=10e-3).renamed(
    "yinyang30", "the Yin-Yang figure with 30 hidden neurons (the network of Göltz et al. 2025)"
)

# Wunderlich & Pehle 2021: 97.6 +- 0.1 % on the test set of MNIST with this network, read from the highest voltage, after
# 100 epochs with batch 5. With batch 50 the mean voltage, a slower current and calibrated weights learn in far fewer steps.
_MNIST = SpikingRecipe(
    name="mnist",
    summary="handwritten digits as latencies, 784-350-10",
    data="mnist",
    hidden=(350,),
    readout="mean",
    tau_syn=20e-3,
    readout_tau_syn=10e-3,
    logit_scale=5.0,
    init_mean=(0.0, 0.0),
    init_std=(1.0, 0.1),
    init_firing=0.3,
    lift=1e-3,
    input_dropout=0.2,
    learning_rate=2e-3,
    learning_rate_decay=0.9,
    batch_size=50,
    epochs=20,
)

_NMNIST = SpikingRecipe(
    name="nmnist",
    summary="digits seen by a moving event camera, 34x34x2",
    data="nmnist",
    hidden=(256,),
    readout="mean",
    readout_tau_mem=50e-3,
    logit_scale=5.0,
    init_mean=(0.0, 0.0),
    init_std=(1.0, 0.1),
    init_firing=0.5,
    lift=1e-3,
    input_dropout=0.2,
    learning_rate=2e-3,
    learning_rate_decay=0.97,
    batch_size=32,
    epochs=40,
)

_TACTILE = SpikingRecipe(
    name="objects",
    summary="36 objects held by an event-driven tactile sensor (Ev-Objects)",
    data="objects",
    hidden=(256,),
    readout="mean",
    tau_mem=100e-3,
    tau_syn=20e-3,
    tau_spread=5.0,
    readout_tau_mem=200e-3,
    readout_tau_syn=20e-3,
    logit_scale=10.0,
    init_mean=(0.0, 0.0),
    init_std=(1.0, 0.1),
    init_firing=0.7,
    learn=(*CONNECTIONS, "bias"),
    lift=1e-3,
    input_dropout=0.1,
    learning_rate=2e-3,
    learning_rate_decay=0.93,
    batch_size=16,
    epochs=25,
)

_SPEECH = SpikingRecipe(
    name="shd",
    summary="spoken digits through an artificial cochlea, feed-forward (after Nowotny et al. 2025)",
    data="shd",
    hidden=(256,),
    readout="integral",
    readout_decay=1.0,
    readout_tau_mem=20e-3,
    logit_scale=5.0,
    init_mean=(0.03, 0.0),
    init_std=(0.01, 0.03),
    count_target=14.0,
    count_weight=1e-4,
    lift=1e-3,
    input_dropout=0.1,
    input_shift=40,
    learning_rate=1e-3,
    learning_rate_decay=0.98,
    batch_size=32,
    epochs=100,
)

_ECG = SpikingRecipe(
    name="ecg",
    summary="waves of an electrocardiogram, one label per 4 ms (QT database, level crossings)",
    data="ecg",
    hidden=(200,),
    readout="at",
    readout_step=4e-3,
    # A wave lasts 50 to 300 ms, a beat 800 ms: neurons of 10 ms to 1 s tell how long ago each event was.
    tau_mem=100e-3,
    tau_syn=20e-3,
    tau_spread=10.0,
    readout_tau_mem=60e-3,
    readout_tau_syn=20e-3,
    logit_scale=5.0,
    init_mean=(0.5, 0.0),
    init_std=(1.0, 0.2),
    init_firing=0.8,
    learn=(*CONNECTIONS, "bias"),
    lift=1e-3,
    learning_rate=1e-2,
    learning_rate_decay=0.85,
    gradient_clip=1.0,
    batch_size=8,
    epochs=15,
)

_FSDD = SpikingRecipe(
    name="fsdd",
    summary="spoken digits of six speakers through a cochlea of 700 channels, feed-forward",
    data="fsdd",
    hidden=(256,),
    readout="mean",
    tau_mem=20e-3,
    tau_syn=10e-3,
    readout_tau_mem=20e-3,
    readout_tau_syn=10e-3,
    logit_scale=20.0,
    init_mean=(0.0, 0.0),
    init_std=(1.0, 0.1),
    init_firing=0.4,
    lift=1e-3,
    input_dropout=0.2,
    input_shift=10,
    learning_rate=3e-3,
    learning_rate_decay=0.95,
    gradient_clip=1.0,
    batch_size=32,
    epochs=40,
)

# Nowotny, Turner & Knight 2025: 93.5 +- 0.7 % on the test set of SHD, 74.1 +- 0.9 % on that of SSC.
_RECURRENT_SPEECH = _SPEECH.changed(hidden=(512,), recurrent=True, init_recurrent=(0.0, 0.02)).renamed(
    "shd_recurrent", "spoken digits through an artificial cochlea, recurrent (after Nowotny et al. 2025)"
)

# Event-based gated units; the twin of each, as many dense ones: --unit gru.
_ROWS = GatedRecipe(
    name="row_mnist",
    summary="handwritten digits read row by row, 28 steps, event-based GRU (its twin: --unit gru)",
    data="row_mnist",
    hidden=(128,),
    readout="last",
    step=1e-3,
    trace_decay=0.9,
    activity_target=0.18,
    activity_weight=10.0,
    activity_ramp=0.3,
    learning_rate=4e-3,
    learning_rate_decay=0.86,
    gradient_clip=1.0,
    batch_size=128,
    epochs=24,
)

_CHARACTERS = GatedRecipe(
    name="characters",
    summary="the next character of tinyshakespeare, event-based GRU (its twin: --unit gru)",
    data="characters",
    hidden=(256,),
    readout="each",
    step=1e-3,
    embedding=64,
    tied=True,
    dropout=0.2,
    activity_target=0.28,
    activity_weight=5.0,
    activity_ramp=0.3,
    learning_rate=4e-3,
    learning_rate_decay=0.75,
    gradient_clip=1.0,
    batch_size=32,
    epochs=10,
    best="loss",
)

# NeuroBench's baselines: sMAPE 13.37 with an LSTM of 100 units, 14.79 with an echo state network.
_FORECAST = GatedRecipe(
    name="mackey_glass",
    summary="a chaotic series forecast freely for ten Lyapunov times (Mackey-Glass, as in NeuroBench), event-based GRU",
    data="mackey_glass",
    data_options={"window": 10, "length": 40, "stride": 1, "warm_up": 10},
    hidden=(64,),
    readout="each",
    direct=True,
    standardize=True,
    threshold_mean=0.05,
    learning_rate=5e-3,
    learning_rate_decay=0.936,
    beta2=0.99,
    gradient_clip=1.0,
    batch_size=16,
    epochs=46,
    best="loss",
)

# Neurons with one time constant: --branches 1 --branch-tau-syn 0.022,0.022, the middle of the two.
# Adam moves all weights of a neuron together, and K branches have K times as many of them: its rate goes with 1 / K, as in
# --branches 4 --learning-rate 5e-3. With 10e-3 the first steps overshoot, and on some seeds silence what hears the fast bits.
_XOR = SpikingRecipe(
    name="xor",
    summary="XOR of a slow bit and the last of several fast ones, neurons with two dendritic branches (Zheng et al. 2024)",
    data="xor",
    hidden=(32,),
    branches=2,
    branch_tau_syn=(5e-3, 100e-3),
    readout="last",
    tau_mem=10e-3,
    readout_tau_mem=20e-3,
    readout_tau_syn=5e-3,
    logit_scale=4.0,
    init_mean=(0.04, 0.0),
    init_std=(0.3, 0.18),
    learn=("weight", "tau_syn"),
    slope_floor=20.0,
    learning_rate=10e-3,
    learning_rate_decay=0.95,
    gradient_clip=1.0,
    batch_size=64,
    epochs=20,
)

# A GRU of as many parameters, at the rate that suits it: --unit gru --hidden 43 --learning-rate 1e-2.
_ADDING = GatedRecipe(
    name="fsdd_adding",
    summary="two spoken digits one after the other, how much do they make together? A layer of dendritic neurons (ELM)",
    data="fsdd_adding",
    data_options={"channels": 140, "duration": 0.8},
    unit="elm",
    hidden=(60,),
    branches=70,
    synapses=4,
    step=10e-3,
    tau_syn=10e-3,
    tau_mem=(10e-3, 0.5),
    readout="mean",
    learning_rate=4e-3,
    learning_rate_decay=0.93,
    batch_size=32,
    epochs=20,
)

# Other rows of the table, and 2, 5, 25, 50 or 100 tasks: --row winners --tasks 25, which come with their own schedule.
_PERMUTED = ContinualRecipe(
    name="permuted_mnist",
    summary="MNIST with its pixels permuted, task after task: dendrites, k-winners, both or neither (Iyer et al. 2022)",
    data="permuted_mnist",
    tasks=10,
    row="both",
    epochs=3,
    learning_rate=5e-4,
)

_ALL = (
    _DIGITS,
    _YINYANG,
    _YINYANG30,
    _YINYANG30.changed(delay=(0.0, 10e-3), delay_learning_rate=0.1e-3).renamed(
        "yinyang30_delays", "yinyang30 with a learnt delay on each synapse of the hidden layer"
    ),
    _MNIST,
    _MNIST.changed(data="fashion_mnist").renamed(
        "fashion_mnist", "clothes as latencies, 784-350-10; otherwise as mnist"
    ),
    _NMNIST,
    _NMNIST.changed(data="pokerdvs", batch_size=4, epochs=40, validation_fraction=0.25).renamed(
        "pokerdvs", "four suits of cards before an event camera, 35x35x2; 48 training samples"
    ),
    _NMNIST.changed(
        data="dvsgesture",
        data_options={"downsample": 0.25},
        tau_mem=50e-3,
        readout_tau_mem=200e-3,
        batch_size=16,
    ).renamed("dvsgesture", "eleven hand gestures before an event camera, 32x32x2 after downsampling"),
    _TACTILE,
    _TACTILE.changed(data="containers", tau_spread=1.0, learn=CONNECTIONS, learning_rate_decay=0.98, epochs=60).renamed(
        "containers", "20 containers held by an event-driven tactile sensor (Ev-Containers)"
    ),
    _ECG,
    # Yin et al. 2021: 85.9 % per step with a recurrent network of adaptive neurons.
    _ECG.changed(recurrent=True, learning_rate=5e-3, init_recurrent=(0.0, 0.02)).renamed(
        "ecg_recurrent", "waves of an electrocardiogram, one label per 4 ms, recurrent; otherwise as ecg"
    ),
    _FSDD,
    _FSDD.changed(recurrent=True).renamed("fsdd_recurrent", "spoken digits, recurrent; otherwise as fsdd"),
    _FSDD.changed(delay=(0.0, 150e-3), delay_learning_rate=3e-3, readout_tau_mem=100e-3, readout_tau_syn=20e-3).renamed(
        "fsdd_delays", "spoken digits, with a learnt delay on each synapse of the hidden layer and a slower readout"
    ),
    _FSDD.changed(
        recurrent=True,
        delay=(0.0, 50e-3),
        recurrent_delay=(0.0, 50e-3),
        longest_delay=60e-3,
        delay_learning_rate=0.3e-3,
        count_target=2.0,
        count_weight=0.01,
        learning_rate=2e-3,
        epochs=20,
    ).renamed(
        "fsdd_chip",
        "spoken digits, recurrent, learnt delays on all synapses that a chip's buffers hold in steps of 1 ms",
    ),
    _ADDING,
    _XOR,
    _SPEECH,
    _RECURRENT_SPEECH,
    _SPEECH.changed(data="ssc", hidden=(512,), epochs=50).renamed(
        "ssc", "spoken commands through an artificial cochlea, feed-forward; otherwise as shd"
    ),
    _RECURRENT_SPEECH.changed(data="ssc", epochs=50).renamed(
        "ssc_recurrent", "spoken commands through an artificial cochlea, recurrent; otherwise as shd_recurrent"
    ),
    _ROWS,
    _ROWS.changed(data="pixel_mnist", trace_decay=0.99, learning_rate=2e-3, epochs=20).renamed(
        "pixel_mnist", "handwritten digits read pixel by pixel, 784 steps, event-based GRU"
    ),
    _CHARACTERS,
    _ROWS.changed(data="ecg", readout="each", step=4e-3, learning_rate_decay=0.93, batch_size=8, epochs=30).renamed(
        "ecg_egru", "waves of an electrocardiogram, one label per 4 ms, event-based GRU"
    ),
    _ROWS.changed(
        data="nmnist",
        readout="mean",
        step=10e-3,
        trace_decay=None,
        dropout=0.3,
        input_dropout=0.2,
        learning_rate=2e-3,
        batch_size=32,
        epochs=15,
    ).renamed("nmnist_egru", "digits seen by a moving event camera, frames of 10 ms, event-based GRU"),
    _ROWS.changed(
        data="vowels",
        hidden=(64,),
        readout="mean",
        trace_decay=None,
        learning_rate_decay=0.97,
        batch_size=16,
        epochs=60,
    ).renamed("vowels", "who of nine speakers said a vowel (JapaneseVowels), 7 to 29 steps, event-based GRU"),
    _FORECAST,
    _PERMUTED,
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})


def find(name: str) -> Recipe:
    """The recipe of this name; an unknown name is an error with the nearest match.

    Example:
        >>> find("yinyang").hidden
        (200,)
    """
    if name not in RECIPES:
        raise RecipeError(f"unknown recipe {name!r}{nearest(name, RECIPES)}")
    return RECIPES[name]
