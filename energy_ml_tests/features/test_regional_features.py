"""Comparisons across regions against loops over pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.features import regional_features
from energy_ml.features.neighbours import Compared
from energy_ml.features.regional_features import (
    MOVE_STEPS,
    NEAREST_COLUMNS,
    REGIONAL_COLUMNS,
    write_nearest,
    write_regional,
)
from energy_ml_tests.features.frames import price_matrix


def brute_regional(values, peers, reference):
    n_times, n_regions = values.shape
    out = np.full((len(REGIONAL_COLUMNS), n_times, n_regions), np.nan)
    for t in range(n_times):
        for own in range(n_regions):
            rest = [region for region in range(n_regions) if region != own and peers[region]]
            known = [values[t, region] for region in rest if not np.isnan(values[t, region])]
            if known:
                out[:3, t, own] = [values[t, own] - x for x in (np.mean(known), min(known), max(known))]
            if reference is not None:
                out[3, t, own] = values[t, own] - values[t, reference]
            for place, steps in enumerate(MOVE_STEPS):
                moves = [values[t, region] - values[t - steps, region] for region in rest if t >= steps]
                moves = [move for move in moves if not np.isnan(move)]
                if moves:
                    out[4 + 3 * place : 7 + 3 * place, t, own] = np.mean(moves), min(moves), max(moves)
    return out


def brute_nearest(values, candidates, window):
    n_times, n_regions = values.shape
    out = np.full((len(NEAREST_COLUMNS), n_times, n_regions), np.nan)
    for t in range(n_times):
        for own in range(n_regions):
            rest = [region for region in candidates[own] if region >= 0]
            gaps = [values[t, own] - values[t, region] for region in rest]
            gaps = [gap for gap in gaps if not np.isnan(gap)]
            if gaps:
                out[-1, t, own] = np.mean([gap > 0 for gap in gaps])
            distance = {}
            for region in rest:
                apart = np.abs(values[t - window + 1 : t + 1, own] - values[t - window + 1 : t + 1, region])
                if t >= window - 1 and not np.isnan(apart).any():
                    distance[region] = apart.mean()
            if not distance:
                continue
            least = min(distance.values())
            # Regions equally near (to the last digits) are told apart by their order.
            nearest = next(region for region, value in distance.items() if value <= least + 1e-9)
            out[:2, t, own] = values[t, own] - values[t, nearest], distance[nearest]
            for place, steps in enumerate(MOVE_STEPS):
                if t >= steps:
                    out[2 + place, t, own] = values[t, nearest] - values[t - steps, nearest]
    return out


@settings(max_examples=50)
@given(
    st.integers(1, 30),
    st.integers(1, 4),
    st.integers(0, 15),
    st.integers(1, 15),
    st.sampled_from([1, 9, 16_384]),
    st.integers(0, 2),
    st.integers(0, 2**32 - 1),
)
def test_columns_equal_loops_over_pairs(n_times, n_regions, peer_bits, reference, block, first, seed):
    values = price_matrix(n_times, n_regions, seed, 0.05)
    peers = np.array([bool(peer_bits >> region & 1) for region in range(n_regions)])
    place = reference if reference < n_regions else None
    first = min(first, n_times - 1)
    regional = np.zeros((len(REGIONAL_COLUMNS), n_times - first, n_regions), np.float32)
    nearest = np.zeros((len(NEAREST_COLUMNS), n_times - first, n_regions), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regional_features, "BLOCK_CELLS", block)
        every = Compared.all_pairs(peers)
        write_regional(values, every, None if place is None else values[:, place], regional, first)
        write_nearest(values, every.candidates, 4, nearest, first)
    tolerance = {"rtol": 1e-6, "atol": 1e-5}
    np.testing.assert_allclose(regional, brute_regional(values, peers, place)[:, first:], **tolerance)
    np.testing.assert_allclose(nearest, brute_nearest(values, every.candidates, 4)[:, first:], **tolerance)


def test_a_region_alone_has_no_others():
    values = price_matrix(30, 1, 1)
    regional = np.zeros((len(REGIONAL_COLUMNS), 30, 1), np.float32)
    nearest = np.zeros((len(NEAREST_COLUMNS), 30, 1), np.float32)
    alone = Compared.all_pairs(np.array([True]))
    write_regional(values, alone, values[:, 0], regional)
    write_nearest(values, alone.candidates, 4, nearest)
    assert (regional[3] == 0).all()
    assert np.isnan(np.delete(regional, 3, axis=0)).all()
    assert np.isnan(nearest).all()


def test_a_spike_takes_no_digits_from_the_others():
    values = np.array([[0.0, 0.0, 0.0], [1e15, 0.1, 0.3]])
    regional = np.zeros((len(REGIONAL_COLUMNS), 2, 3), np.float32)
    write_regional(values, Compared.all_pairs(np.ones(3, bool)), values[:, 0], regional)
    assert regional[0, 1, 0] == np.float32(values[1, 0] - 0.2)
    assert regional[REGIONAL_COLUMNS.index("others_change_mean_1"), 1, 0] == np.float32(0.2)
