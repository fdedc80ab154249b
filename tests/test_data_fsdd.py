"""The cochlea, and spoken digits from wav files written here."""

import doctest
import io
import wave
import zipfile

import numpy as np
import pytest
import torch

from eventnet import Events, data
from eventnet.data import cochlea
from eventnet.data.fsdd import RATE, read_wav

# ---- the cochlea ------------------------------------------------------------------------------------------


def tone(frequency, seconds=0.25, level=1.0):
    return level * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)


def test_examples():
    found = doctest.testmod(cochlea)
    assert found.attempted >= 3 and found.failed == 0


def fields(events):
    return events.times, events.units, events.offsets


def test_centres_lie_evenly_on_the_erb_rate_scale():
    f = cochlea.centres(100, RATE)
    rate = 21.4 * np.log10(1 + 0.00437 * f)
    np.testing.assert_allclose(np.diff(rate), np.diff(rate)[0])
    assert f[0] == pytest.approx(60) and f[-1] == pytest.approx(3600)


@pytest.mark.parametrize("frequency", [200, 700, 1500, 3000])
def test_a_tone_is_heard_at_its_place_from_its_start_to_its_end(frequency):
    sound = np.concatenate([np.zeros(800), tone(frequency), np.zeros(2400)])
    events = cochlea.encode([sound], RATE, channels=200)
    loudest = cochlea.centres(200, RATE)[events.counts()[0] == events.counts().max()]
    assert loudest.min() < 1.1 * frequency and loudest.max() > 0.9 * frequency
    assert abs(np.median(loudest) / frequency - 1) < 0.15
    assert 0.1 < events.times.min() < 0.12 and 0.33 < events.times.max() < 0.45


def test_the_filters_have_gain_one_at_their_centre_and_the_bandwidth_of_glasberg_and_moore():
    response = cochlea._filters(10, RATE, 16384).abs().numpy() / 2
    at = np.arange(8192) * RATE / 16384
    for f, gain in zip(cochlea.centres(10, RATE)[1:-1], response[1:-1], strict=True):
        assert gain.max() == pytest.approx(1, abs=2e-3) and abs(at[gain.argmax()] - f) <= RATE / 16384
        assert (gain**2).sum() * RATE / 16384 == pytest.approx(24.7 + 0.108 * f, rel=0.03)  # equivalent rectangle


def test_the_envelope_is_that_of_the_gammatone_response():
    sound = np.random.RandomState(0).randn(1200)
    level = sound - cochlea.TILT * np.concatenate([[0], sound[:-1]])
    level /= np.sqrt(np.mean(level**2))
    current = cochlea._current(sound, RATE, 20, 1000)
    t = np.arange(1200) / RATE
    for k in (5, 10, 15):
        f = cochlea.centres(20, RATE)[k]
        b = 1.019 * (24.7 + 0.108 * f)
        g = t**3 * np.exp(2 * np.pi * (1j * f - b) * t)
        g /= abs((g * np.exp(-2j * np.pi * f * t)).sum()) / 2
        wave_ = np.convolve(level, g)[:1200:8]
        np.testing.assert_allclose(current[:, k], cochlea.GAIN * abs(wave_) ** 0.3, atol=0.12)


def test_nerves_fire_at_the_times_of_the_closed_form():
    drive = np.full((40, 1), 2.0, np.float32)
    drive[20:] = 0.9  # never reaches the threshold
    events = cochlea._fire([drive], 1, 0.1)
    period = cochlea.TAU * np.log(2) + cochlea.REFRACTORY
    expected = cochlea.TAU * np.log(2) + period * np.arange(2)
    np.testing.assert_allclose(events.times.numpy(), expected[expected < 0.02], atol=1e-6)


def test_the_same_sound_gives_the_same_spikes_alone_in_a_batch_and_at_any_level():
    random = np.random.RandomState(1)
    sounds = [random.randn(n) for n in (300, 4000, 1111, 8000)] * 17  # more than a chunk
    together = cochlea.encode(sounds, RATE, channels=50)
    again = cochlea.encode(sounds, RATE, channels=50)
    assert all(torch.equal(a, b) for a, b in zip(fields(together), fields(again), strict=True))
    for k in (0, 1, 3, 66):
        for factor in (1, 1 / 32768):
            alone = cochlea.encode([sounds[k] * factor], RATE, channels=50)
            assert torch.equal(alone.times, together.sample(k).times) and alone.num_events > 20
            assert torch.equal(alone.units, together.sample(k).units)


def test_silence_and_short_sounds():
    events = cochlea.encode([np.zeros(400), np.zeros(0), np.ones(1), np.array([1, 0, -1])], RATE, channels=30)
    assert events.batch_size == 4 and events.lengths[:2].tolist() == [0, 0]
    assert cochlea.encode([], RATE, channels=30).batch_size == 0
    cut = cochlea.encode([tone(500)], RATE, channels=30, duration=0.1)
    whole = cochlea.encode([tone(500)], RATE, channels=30)
    assert torch.equal(cut.times, whole.times[whole.times < 0.1]) and cut.duration.item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("sound", "options", "message"),
    [
        (np.zeros((2, 3)), {}, r"sound 0: expected finite numbers of shape \(samples,\), got \(2, 3\)"),
        (np.array([0.0, np.nan]), {}, "sound 0: expected finite numbers"),
        (np.zeros(3), {"channels": 1}, "channels >= 2"),
        (np.zeros(3), {"duration": 0.0}, "duration > 0"),
    ],
)
def test_what_is_no_sound_is_refused(sound, options, message):
    with pytest.raises(ValueError, match=message):
        cochlea.encode([sound], RATE, **options)


# ---- the recordings ---------------------------------------------------------------------------------------

SPEAKERS = ("anna", "ben", "cleo")


def wav(samples, rate=RATE, channels=1, width=2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(np.asarray(samples, "<i2").tobytes())
    return file.getvalue()


def spoken(numbers=range(10)) -> dict[str, bytes]:
    """Every digit of every speaker, a tone with noise each."""
    random, made = np.random.RandomState(0), {}
    for digit in range(10):
        for k, speaker in enumerate(SPEAKERS):
            for number in numbers:
                sound = tone(200 + 150 * digit + 20 * k, 0.05, 8000) + 500 * random.randn(int(0.05 * RATE))
                made[f"{digit}_{speaker}_{number}.wav"] = wav(sound.astype(int))
    return made


FILES = spoken()


def write(root, files, place="folder"):
    if place.startswith("zip"):
        folder = root / "fsdd" if "below" in place else root
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / "fsdd_recordings.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(f"recordings/{name}", content)
        return root
    folder = root / {"folder": "recordings", "clone": "free-spoken-digit-dataset/recordings"}.get(place, ".")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return root


def rows(part):
    return {tuple(part[k][0].times.tolist()) for k in range(len(part))}


@pytest.mark.parametrize("place", ["zip", "zip below", "folder", "clone", "files"])
def test_layouts(tmp_path, place):
    splits = data.load("fsdd", write(tmp_path, FILES, place), channels=40, validation_fraction=0.2)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [120, 30, 150]
    assert (splits.num_units, splits.num_classes, splits.sensor_size) == (40, 10, None)
    assert "120 training, 30 validation (seed 0), 150 test (numbers 0 to 4); partial copy: 300 of 3000" in splits.note
    assert torch.bincount(splits.validation.labels).tolist() == [3] * 10
    assert torch.equal(splits.test.labels, torch.arange(10).repeat_interleave(15))
    first = cochlea.encode([read_wav(FILES["0_anna_0.wav"], "here")], RATE, channels=40)
    events, label = splits.test[0]
    assert label == 0 and torch.equal(events.times, first.times) and torch.equal(events.units, first.units)
    for part in (splits.train, splits.validation, splits.test):
        e = part.events
        Events(e.times, e.units, e.offsets, e.num_units, e.duration)  # runs its checks


def test_one_speaker_left_out(tmp_path):
    def load(**options):
        return data.load("fsdd", tmp_path, channels=40, **options)

    write(tmp_path, FILES)
    ben = {
        tuple(cochlea.encode([read_wav(c, n)], RATE, channels=40).times.tolist())
        for n, c in FILES.items()
        if "ben" in n
    }
    splits, again, other = (load(speaker="ben", seed=seed) for seed in (0, 0, 1))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [180, 20, 100]
    assert rows(splits.test) == ben == rows(other.test) and "100 test (ben)" in splits.note
    assert rows(splits.validation) == rows(again.validation) != rows(other.validation)
    assert not rows(splits.validation) & rows(splits.train) and not ben & (rows(splits.train) | rows(splits.validation))
    both = load(speaker="ben", validation_speaker="cleo")
    assert [len(part) for part in (both.train, both.validation, both.test)] == [100, 100, 100]
    assert rows(both.test) == ben and not rows(both.validation) & rows(both.train)
    strangers = load(validation_speaker="ben")
    assert [len(part) for part in (strangers.train, strangers.validation, strangers.test)] == [100, 50, 150]
    assert rows(strangers.validation) <= ben
    for options, message in [
        ({"speaker": "bne"}, "speaker: nobody is called 'bne'; choose from anna, ben, cleo"),
        ({"validation_speaker": "x"}, "validation_speaker: nobody is called 'x'"),
        ({"speaker": "ben", "validation_speaker": "ben"}, "is the test part already"),
    ]:
        with pytest.raises(ValueError, match=message):
            load(**options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated or not a wav file"),
        (b"ID3 an mp3", "truncated or not a wav file"),
        (wav(np.zeros(50))[:30], "truncated or not a wav file"),
        (wav(np.zeros(50))[:-10], "truncated: 50 samples announced, 45 there"),
        (wav([]), "holds no samples"),
        (wav(np.zeros(50), rate=16000), "expected 1 channel, 16 bits, 8000 Hz, got 1 .*16 bits, 16000 Hz; convert"),
        (wav(np.zeros(50), channels=2), r"got 2 channel\(s\)"),
        (wav(np.zeros(50), width=1), "8 bits"),
    ],
)
@pytest.mark.parametrize("place", ["zip", "folder"])
def test_damaged_files_are_named(tmp_path, content, message, place):
    write(tmp_path, FILES | {"3_ben_4.wav": content}, place)
    with pytest.raises(ValueError, match=f"3_ben_4.wav: .*{message}"):
        data.load("fsdd", tmp_path, channels=40)


def test_other_files_and_missing_ones(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no fsdd_recordings\.zip and no folder recordings"):
        data.load("fsdd", tmp_path)
    (tmp_path / "recordings").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no recordings digit_speaker_number\.wav"):
        data.load("fsdd", tmp_path)
    write(tmp_path, {"hello.wav": wav([1, 2])})
    with pytest.raises(ValueError, match=r"hello.wav: expected a name like 3_george_17.wav"):
        data.load("fsdd", tmp_path)
    (tmp_path / "fsdd_recordings.zip").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"fsdd_recordings.zip: truncated or not a zip archive"):
        data.load("fsdd", tmp_path)
