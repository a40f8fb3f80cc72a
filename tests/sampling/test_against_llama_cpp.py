"""llama.cpp's own samplers, through llama-cpp-python, on random logits: same tokens, same shares."""

from __future__ import annotations

import ctypes
import importlib.util

import numpy as np
import pytest
import torch

from decodecli.sampling.chain import Chain
from decodecli.settings import SamplingParams

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llama_cpp") is None,
        reason="llama-cpp-python is not installed (pip install llama-cpp-python)",
    ),
]
# Our settings, llama.cpp's sampler and what it is made with.
SAMPLERS = [
    ({"top_k": 40}, "top_k", (40,)),
    ({"top_p": 0.9}, "top_p", (0.9, 1)),
    ({"min_p": 0.05}, "min_p", (0.05, 1)),
    ({"typical_p": 0.8}, "typical", (0.8, 1)),
    ({"top_nsigma": 1.0}, "top_n_sigma", (1.0,)),
    ({"xtc_probability": 1.0, "xtc_threshold": 0.02}, "xtc", (1.0, 0.02, 1, 0)),
    ({"temperature": 0.8, "dynatemp_range": 0.5}, "temp_ext", (0.8, 0.5, 1.0)),
]


def llama_cpp_probabilities(logits: np.ndarray, name: str, inputs: tuple) -> np.ndarray:
    import llama_cpp

    data = (llama_cpp.llama_token_data * len(logits))()
    for token, logit in enumerate(logits.tolist()):
        data[token].id, data[token].logit, data[token].p = token, logit, 0.0
    tokens = llama_cpp.llama_token_data_array(data, len(logits), -1, False)
    sampler = getattr(llama_cpp, f"llama_sampler_init_{name}")(*inputs)
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(tokens))
    llama_cpp.llama_sampler_free(sampler)
    left = np.full(len(logits), -np.inf)
    for index in range(tokens.size):
        left[tokens.data[index].id] = tokens.data[index].logit
    weights = np.exp(left - left.max())
    return weights / weights.sum()


@pytest.mark.parametrize(("values", "name", "inputs"), SAMPLERS, ids=[s[1] for s in SAMPLERS])
def test_a_method_leaves_what_llama_cpps_sampler_leaves(values, name, inputs):
    for seed in range(150):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(1, 400, generator=generator) * (1 + seed % 4)
        theirs = llama_cpp_probabilities(logits[0].numpy(), name, inputs)
        chain = Chain(SamplingParams(**values))
        ids = torch.zeros(1, 1, dtype=torch.long)
        ours = chain(logits, ids).scores.double().softmax(-1)[0].numpy()
        # A token exactly at the edge may fall on either side of it by rounding.
        assert abs(int((ours > 0).sum()) - int((theirs > 0).sum())) <= 1
        assert np.abs(ours - theirs).sum() / 2 < 0.02
