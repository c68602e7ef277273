"""Trains the network of gain.c and writes its weights (native/mask/weights.h).

    python train.py FOLDER          everything: speech, scenes, training; about two hours on one core

Needs torch, numpy, scipy, soundfile, a C compiler, flite, espeak-ng and festival with the voices of Debian's
festvox-us-slt-hts, -kallpc16k, -kdlpc16k, -italp16k, -itapc16k, -ca-ona-hts, -czech-dita, -czech-machac,
-czech-ph, -suopuhe-lj, -suopuhe-mv and -ru. Loss: difference of compressed magnitudes and, for a part, of
compressed complex spectra (A. Ephrat et al., SIGGRAPH 2018), with the exponents 1/2, near loudness, and 1/4,
which hears what is left in the gaps of speech, behind the statistical gain as ns.c applies it; and, where no
echo is heard, what the talker lacks in intelligibility (ESTOI; intelligibility as a loss: S.-W. Fu et al.,
IEEE/ACM TASLP 26 (2018)). That ns.c takes no noise from a talker who stands out clearly is part of it; what
it does besides around such a talker (subtraction by band, and less of everything in a quiet room) is not.

The weights in the tree are of several rounds. The last but one had 3600 scenes, 2400 of them new, and 6
epochs at a third of the learning rate, and began with the mean of two networks of the round before (5 epochs
each, pauses counted 4 and 6 times). The last had 3 more epochs on 3600 scenes, 1200 of them with a buzzing
talker in a quarter and headphones in 27 %, twice, from two networks; a third of their mean and two thirds of
the weights before make these: the mean alone suppresses more noise, but takes a talker unlike those it was
trained on for clatter. 96 units instead of 64 did no better.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import dataset
import numpy as np
import scenes
import torch
import voices
from torch import Tensor, nn

UNITS = 64
BANDS, BINS = dataset.BANDS, dataset.BINS
OUTPUTS = 2 * BANDS + 1
OVERCUT = 3.0  # how much worse it is to take from the talker than to leave a disturbance
PAUSES = 4.0  # how much more the talker's pauses count
# How much more a talker counts in the first ONSET_BLOCKS after SILENT_BLOCKS without one
ONSETS, ONSET_BLOCKS, SILENT_BLOCKS = 3.0, 15, 50
# Taken from what the trained network answers, a logit by band: noise alone goes down by 0.5 to 1 dB more; of
# the talker's scores PESQ and ESTOI fall by less than 0.02, DNSMOS's SIG by 0.02 to 0.04. More of it takes a
# talker for the echo of a sound that isn't heard at all.
ANSWER_LOWERED = 0.5
EPOCHS, SCENES_PER_STEP, BLOCKS_PER_STEP = 12, 32, 400
BIN_STRIDE = 4  # a quarter of the bins, another one each step, tells enough
TRAINING_SCENES, VALIDATION_SCENES, SPEECH_MINUTES = 3600, 64, 250
LEARNING_RATE = 3e-3
ACTIVE_POWER = 3e-3  # 25 dB under the talker's usual level
QUIET = 1e-4  # amplitude, -80 dB: no louder than that is silence
MAGNITUDE_SHARE = 0.7
WIDENING_HZ = 1500.0  # from there on the ear's bands widen with the frequency, and a bin counts less
REST_SHARE, ACTIVITY_SHARE = 0.5, 0.05
# How much ESTOI counts: without it noise at 0 and 5 dB costs 0.01 of it. Only where no echo is heard
# (1.5 dB at most over talker and noise): it doesn't mind the level, and under an echo the talker would sink.
INTELLIGIBILITY_SHARE, NO_ECHO = 1.0, 1.4
SPAN_BLOCKS = 38  # 0.38 s, as ESTOI's
SYLLABLE_POWER = 1e-3  # below 4 kHz, 30 dB under the talker's usual level
FLOOR = 0.126  # -18 dB, ns.c at its default level
# As in near_end.c: excess in which near-end speech becomes clear, and the decay after it. ns.c uses no mask
# on noise in its first second: a scene begins as if there had just been clear speech.
BARELY_CLEAR, CLEAR, HARDLY_SPEECH, CLEAR_DECAY, ECHO_CAUTION = 0.7, 1.8, 0.8, 0.98, 2.0
CLEAR_FIRST_BIN, CLEAR_LAST_BIN = 4, 140
RATIO_SCALE = 0.2  # of the features, gain.c
# bands from the first one above 4 kHz on, which a signal at 8 kHz lacks, are blanked in a part of the steps
NARROW_BANDS, NARROW_SHARE = 13, 0.1


def _band_edges() -> list[int]:
    edges = [0]
    while len(edges) <= BANDS:
        edges.append(edges[-1] + (4 if edges[-1] < 20 else edges[-1] // 5))
    return edges


def clear_members() -> Tensor:
    """(BINS, BANDS): whether a bin belongs to a band, of those ns.c judges a talker's clearness by."""
    members = torch.zeros(BINS, BANDS)
    for band, (first, end) in enumerate(pairwise(_band_edges())):
        members[max(first, CLEAR_FIRST_BIN) : min(end, CLEAR_LAST_BIN), band] = 1.0
    return members


def band_weights() -> Tensor:
    """(BANDS, BINS): straight lines between the bands' centres, as spread() in gain.c draws them."""
    edges = _band_edges()
    centres = (np.array(edges[:-1]) + np.array(edges[1:]) - 1) / 2
    return torch.tensor(
        np.array([np.interp(np.arange(BINS), centres, row) for row in np.eye(BANDS)]), dtype=torch.float32
    )


class Network(nn.Module):
    """As in gain.c: dense, gated recurrent unit, dense over both."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(dataset.FEATURES, UNITS)
        self.recurrent = nn.GRU(UNITS, UNITS, batch_first=True)
        self.last = nn.Linear(2 * UNITS, OUTPUTS)

    def forward(self, features: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (..., OUTPUTS) of speech and rest by band and of the talker's activity."""
        seen = torch.tanh(self.first(features))
        memory, state = self.recurrent(seen, state)
        return self.last(torch.cat([seen, memory], -1)), state


def as_used(
    logits: Tensor, features: Tensor, error: Tensor, members: Tensor, clear_talk: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits whose speech gain takes no noise from clear near-end speech (mask_share in ns/weighting.c).

    logits, features, error: (batch, blocks, ...); error and members of the same bins; clear_talk: (batch) of
    the block before, returned for the next.
    """
    with torch.no_grad():
        heard = (error**2) @ members
        over_noise, over_echo = (
            torch.exp(ratios / RATIO_SCALE) for ratios in features[..., : 2 * BANDS].split(BANDS, -1)
        )
        known = (heard / over_noise + ECHO_CAUTION * heard / over_echo).sum(-1) + QUIET**2
        excess = torch.log10(heard.sum(-1) / known + 1)
        clear = ((excess - BARELY_CLEAR) / (CLEAR - BARELY_CLEAR)).clamp(0, 1)
        talker = ((torch.sigmoid(logits[..., -1]) - HARDLY_SPEECH) / (1 - HARDLY_SPEECH)).clamp(0, 1) * clear
        lately = []
        for now in talker.unbind(1):
            clear_talk = torch.maximum(now, CLEAR_DECAY * clear_talk)
            lately.append(clear_talk)
        left_alone = torch.stack(lately, 1)[..., None]
    speech, rest = torch.sigmoid(logits[..., :BANDS]), torch.sigmoid(logits[..., BANDS : 2 * BANDS])
    used = torch.logit(speech + left_alone * (rest - speech), 1e-6)
    return torch.cat([used, logits[..., BANDS:]], -1), clear_talk


def _onsets(active: Tensor) -> Tensor:
    """(batch, blocks), 0 or 1: a talker's first ONSET_BLOCKS after SILENT_BLOCKS that were all seen."""
    talked = nn.functional.pad(active.float().cumsum(-1), (1, 0))
    begins = torch.zeros_like(talked[:, 1:])
    before = talked[:, SILENT_BLOCKS:-1] - talked[:, : -1 - SILENT_BLOCKS]
    begins[:, SILENT_BLOCKS:] = (before == 0) & active[:, SILENT_BLOCKS:]
    begun = nn.functional.pad(begins.cumsum(-1), (ONSET_BLOCKS, 0))
    return (begun[:, ONSET_BLOCKS:] > begun[:, :-ONSET_BLOCKS]).float()


def _distance(out: Tensor, target: Tensor, cosine: Tensor) -> Tensor:
    magnitude = (out - target) ** 2
    magnitude = torch.where(out < target, OVERCUT * magnitude, magnitude)
    spectrum = out**2 + target**2 - 2 * out * target * cosine
    by_bin = MAGNITUDE_SHARE * magnitude + (1 - MAGNITUDE_SHARE) * spectrum
    hz = torch.arange(out.shape[-1]) / out.shape[-1] * scenes.RATE_HZ / 2
    weight = 1 / (1 + hz / WIDENING_HZ)
    return (by_bin * weight).mean(-1) / weight.mean()


def _error(gain: Tensor, error: Tensor, target: Tensor, cosine: Tensor, active: Tensor) -> Tensor:
    """In the talker's pauses only the fine exponent counts: what matters there is that nothing is heard."""
    out, target = torch.sqrt(gain * error + QUIET), torch.sqrt(target + QUIET)
    loud = _distance(out, target, cosine)
    fine = _distance(torch.sqrt(out), torch.sqrt(target), cosine)
    talker = 0.5 * (loud + fine) * (1 + (ONSETS - 1) * _onsets(active))
    return torch.where(active, talker, PAUSES * fine).mean()


def losses(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the speech gain, the gain for all but echo, and the activity. targets: (..., TARGETS, bins)."""
    speech, rest = (torch.sigmoid(band) @ weights for band in logits[..., :-1].split(BANDS, -1))
    error, wanted_speech, wanted_rest, speech_cosine, rest_cosine, both, echo_only = targets.unbind(-2)
    active = (wanted_speech**2).mean(-1) > ACTIVE_POWER
    everywhere = torch.ones_like(active)
    return (
        _error(speech * both, error, wanted_speech, speech_cosine, active),
        _error(rest * echo_only, error, wanted_rest, rest_cosine, everywhere),
        nn.functional.binary_cross_entropy_with_logits(logits[..., -1], active.float()),
    )


def _third_octaves() -> Tensor:
    """(bins, 15): whether a bin belongs to one of ESTOI's bands, from 150 Hz to 4.3 kHz."""
    centre = 150 * (BINS - 1) / (scenes.RATE_HZ / 2) * 2 ** (np.arange(15) / 3)
    edges = np.rint(np.stack([centre * 2 ** (-1 / 6), centre * 2 ** (1 / 6)])).astype(int)
    members = torch.zeros(edges.max(), 15)
    for band, (first, end) in enumerate(edges.T):
        members[first : max(end, first + 1), band] = 1.0
    return members


def _spans(x: Tensor) -> Tensor:
    """(batch, spans, ..., SPAN_BLOCKS) of (batch, blocks, ...), half overlapping."""
    return x.unfold(1, SPAN_BLOCKS, SPAN_BLOCKS // 2)


def _normalised(envelopes: Tensor, active: Tensor) -> Tensor:
    """Spans without mean and with unit norm: first each band's active blocks, then each block's bands."""
    mean = (envelopes * active).sum(-1, keepdim=True) / (active.sum(-1, keepdim=True) + 1e-6)
    rows = nn.functional.normalize((envelopes - mean) * active, dim=-1, eps=1e-4)
    return nn.functional.normalize(rows - rows.mean(2, keepdim=True), dim=2, eps=1e-4)


def unintelligibility(logits: Tensor, targets: Tensor, weights: Tensor, octaves: Tensor) -> Tensor:
    """1 - ESTOI (J. Jensen, C. Taal, IEEE/ACM TASLP 24 (2016)) of spans with speech and without echo.

    targets: (batch, blocks, TARGETS, bins of octaves).
    """
    error, speech, rest, _, _, both, _ = targets.unbind(-2)
    wanted = torch.sigmoid(logits[..., :BANDS]) @ weights[:, : len(octaves)] * both
    kept = torch.maximum(wanted, FLOOR * torch.clamp(rest / (error + 1e-6), max=1.0)) * error
    active = _spans(((speech**2).mean(-1) > SYLLABLE_POWER).float())[:, :, None]
    alone = _spans(((error**2).mean(-1) < NO_ECHO * (rest**2).mean(-1) + QUIET).float()).mean(-1) > 0.9
    clean, heard = (_spans(torch.sqrt((x**2) @ octaves + 1e-9)) for x in (speech, kept))
    alike = (_normalised(clean, active) * _normalised(heard, active)).sum((-1, -2))
    spoken = active.sum((-1, -2))
    counts = ((spoken > SPAN_BLOCKS / 2) & alone).float()
    return ((spoken - alike) * counts).sum() / ((spoken * counts).sum() + 1e-6)


def train(folder: Path, prefix: str, checkpoint: Path) -> Network:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    features = np.load(folder / f"{prefix}train-features.npy", mmap_mode="r")
    targets = np.load(folder / f"{prefix}train-targets.npy", mmap_mode="r")
    held_told, held_wanted = (
        torch.tensor(np.load(folder / f"{prefix}validation-{part}.npy")).float()
        for part in ("features", "targets")
    )
    network, weights, members, octaves = Network(), band_weights(), clear_members(), _third_octaves()
    steps = EPOCHS * (len(features) // SCENES_PER_STEP) * (features.shape[1] // BLOCKS_PER_STEP)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng(0)
    for epoch in range(EPOCHS):
        order = rng.permutation(len(features))
        for at in range(0, len(order) - SCENES_PER_STEP + 1, SCENES_PER_STEP):
            chosen = np.sort(order[at : at + SCENES_PER_STEP])
            heard = torch.tensor(features[chosen]).float()
            if rng.random() < NARROW_SHARE:
                heard.unflatten(-1, (5, BANDS))[..., NARROW_BANDS:] = 0
            wanted, state, clear_talk = targets[chosen], None, torch.ones(len(chosen))
            for start in range(0, features.shape[1] - BLOCKS_PER_STEP + 1, BLOCKS_PER_STEP):
                part, first_bin = slice(start, start + BLOCKS_PER_STEP), int(rng.integers(BIN_STRIDE))
                logits, state = network(heard[:, part], state)
                state = state.detach()
                some = torch.tensor(np.ascontiguousarray(wanted[:, part, :, first_bin::BIN_STRIDE])).float()
                logits, clear_talk = as_used(
                    logits,
                    heard[:, part],
                    some[..., dataset.ERROR, :],
                    members[first_bin::BIN_STRIDE],
                    clear_talk,
                )
                low = torch.tensor(np.ascontiguousarray(wanted[:, part, :, : len(octaves)])).float()
                unclear = unintelligibility(logits, low, weights, octaves)
                speech, rest, activity = losses(logits, some, weights[:, first_bin::BIN_STRIDE])
                optimiser.zero_grad()
                loss = speech + REST_SHARE * rest + ACTIVITY_SHARE * activity
                (loss + INTELLIGIBILITY_SHARE * unclear).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
                schedule.step()
        with torch.no_grad():
            logits, clear_talk = network(held_told)[0], torch.ones(len(held_told))
            error = held_wanted[..., dataset.ERROR, :]
            logits, _ = as_used(logits, held_told, error, members, clear_talk)
            held = losses(logits, held_wanted, weights)
        print(epoch, *(f"{part:.5f}" for part in held), flush=True)
        torch.save(network.state_dict(), checkpoint)
    return network


def _rows(values: np.ndarray, digits: str) -> str:
    texts = [format(v, digits) + ("" if digits == "d" else "f") for v in values]
    per_line = 32 if digits == "d" else 8
    return ",\n".join("    " + ", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line))


def write_weights(network: Network, path: Path) -> None:
    """The layers as C arrays: 8 bits a weight, a scale a row, rows padded as dense.h wants them."""
    recurrent = network.recurrent
    layers = {
        "FIRST": (network.first.weight, network.first.bias),
        "INPUT_GATES": (recurrent.weight_ih_l0, recurrent.bias_ih_l0),
        "STATE_GATES": (recurrent.weight_hh_l0, recurrent.bias_hh_l0),
        "LAST": (network.last.weight, network.last.bias),
    }
    text = [
        "/* Made by training/train.py; not to be edited. Rows are padded with zeros to dense_stride(). */",
        "#ifndef APMPI_MASK_WEIGHTS_H\n#define APMPI_MASK_WEIGHTS_H\n\n#include <stdint.h>\n",
    ]
    for name, (weight, bias) in layers.items():
        exact = weight.detach().double().numpy()
        scale = np.abs(exact).max(1) / 127
        rounded = np.rint(exact / scale[:, None]).astype(int)
        padded = np.pad(rounded, ((0, 0), (0, -exact.shape[1] % 16)))
        text.append(f"static const int8_t {name}_WEIGHT[] = {{\n{_rows(padded.ravel(), 'd')}}};")
        text.append(f"static const float {name}_SCALE[] = {{\n{_rows(scale, '.7e')}}};")
        text.append(f"static const float {name}_BIAS[] = {{\n{_rows(bias.detach().numpy(), '.7e')}}};\n")
    path.write_text("\n".join(text) + "#endif\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for speech, scenes and the checkpoint; needs 16 GB")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    spoken = folder / "speech"
    if not spoken.exists():
        voices.speak(SPEECH_MINUTES, 1, spoken)
    dataset.make(folder, "validation", 0, VALIDATION_SCENES, [spoken])
    dataset.make(folder, "train", 1000, TRAINING_SCENES, [spoken])
    network = train(folder, "", folder / "network.pt")
    with torch.no_grad():
        network.last.bias[: 2 * BANDS] -= ANSWER_LOWERED
    write_weights(network, dataset.NATIVE / "mask" / "weights.h")


if __name__ == "__main__":
    main()
