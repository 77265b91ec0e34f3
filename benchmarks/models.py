"""Models of other libraries that hold recurrent modules of torch's, at the sizes of their own examples.

Weights are random under a fixed seed. A library is imported when its model is made, which raises ImportError
where it is not installed: ``pip install -e '.[models]' -c constraints.txt``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Model(NamedTuple):
    """A model and what one does with it.

    Attributes:
        module: the model, in float32 and in training mode.
        infer: its outputs, floating-point tensors.
        loss: what a training step goes down.
    """

    module: nn.Module
    infer: Callable[[nn.Module], list[Tensor]]
    loss: Callable[[nn.Module], Tensor]


def attentive_fp(B: int = 200) -> Model:
    """PyTorch Geometric's AttentiveFP (Xiong et al. 2020), with GRU cells: B molecules of 10 to 30 atoms."""
    torch_geometric = _torch_geometric()
    torch.manual_seed(0)
    module = torch_geometric.nn.AttentiveFP(
        39, 200, 1, edge_dim=10, num_layers=2, num_timesteps=2, dropout=0.2
    )
    atoms = torch.randint(10, 31, (B,))
    batch = torch.repeat_interleave(torch.arange(B), atoms)
    first = torch.arange(len(batch) - 1)
    bonded = batch[first] == batch[first + 1]  # chains of atoms
    one_way = torch.stack([first[bonded], first[bonded] + 1])
    edges = torch.cat([one_way, one_way.flip(0)], dim=1)
    x, edge_attr, target = torch.randn(len(batch), 39), torch.randn(edges.shape[1], 10), torch.randn(B, 1)

    def run(module: nn.Module) -> Tensor:
        return module(_as(module, x), edges, _as(module, edge_attr), batch)

    return Model(module, lambda m: [run(m)], lambda m: (run(m) - _as(m, target)).square().mean())


def graph_sage_lstm(B: int = 1024) -> Model:
    """PyTorch Geometric's GraphSAGE, LSTM aggregator (Hamilton et al. 2017): B nodes, 10 edges each."""
    torch_geometric = _torch_geometric()
    torch.manual_seed(0)
    module = torch_geometric.nn.GraphSAGE(64, 128, num_layers=2, out_channels=16, aggr="lstm")
    edges = torch.stack([torch.randint(B, (10 * B,)), torch.repeat_interleave(torch.arange(B), 10)])
    x, target = torch.randn(B, 64), torch.randint(16, (B,))

    def run(module: nn.Module) -> Tensor:
        return module(_as(module, x), edges)

    return Model(module, lambda m: [run(m)], lambda m: nn.functional.cross_entropy(run(m), target))


def recurrent_ppo(B: int = 8, T: int = 128) -> Model:
    """The policy of Stable-Baselines3 Contrib's recurrent PPO, an LSTM for the actor and one for the critic:
    B environments, in training for T steps with episodes that end, in inference for one."""
    from gymnasium import spaces
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    torch.manual_seed(0)
    module = RecurrentActorCriticPolicy(spaces.Box(-1, 1, (4,)), spaces.Discrete(2), lambda _: 3e-4)
    # it makes observations float32, whatever the policy's precision
    module.features_extractor.register_forward_pre_hook(lambda _, given: _as(module_of[0], given[0]))
    module_of: list[nn.Module] = [module]
    seen, actions = torch.rand(B * T, 4), torch.randint(2, (B * T,))
    starts = (torch.rand(B * T) < 0.02).float()

    def states(module: nn.Module) -> Any:
        zeros = _as(module, torch.zeros(1, B, 256))
        return RNNStates((zeros, zeros), (zeros, zeros))

    def infer(module: Any) -> list[Tensor]:
        module_of[0] = module
        no_starts = _as(module, torch.zeros(B))
        _, values, log_probability, after = module(seen[:B], states(module), no_starts, deterministic=True)
        return [values, log_probability, *after.pi, *after.vf]

    def loss(module: Any) -> Tensor:
        module_of[0] = module
        values, log_probability, entropy = module.evaluate_actions(
            seen, actions, states(module), _as(module, starts)
        )
        return values.square().mean() - log_probability.mean() - 0.01 * entropy.mean()

    return Model(module, infer, loss)


def bi_lstm_crf(B: int = 32, rnn: str = "lstm") -> Model:
    """The tagger of bi-lstm-crf (after Huang et al. 2015): B packed sentences of 5 to 50 words."""
    from bi_lstm_crf import BiRnnCrf

    torch.manual_seed(0)
    module = BiRnnCrf(3000, 20, embedding_dim=100, hidden_dim=128, rnn=rnn)
    lengths = torch.randint(5, 51, (B,))
    lengths[0] = 50
    words = torch.randint(1, 3000, (B, 50)) * (torch.arange(50) < lengths[:, None])
    tags = torch.randint(20, (B, 50))
    return Model(module, lambda m: [m(words)[0]], lambda m: m.loss(words, tags))


def bi_gru_crf(B: int = 32) -> Model:
    """The same tagger with its other cell."""
    return bi_lstm_crf(B, rnn="gru")


MODELS: dict[str, Callable[..., Model]] = {
    "AttentiveFP": attentive_fp,
    "GraphSAGE, LSTM aggregator": graph_sage_lstm,
    "RecurrentPPO policy": recurrent_ppo,
    "BiLSTM-CRF": bi_lstm_crf,
    "BiGRU-CRF": bi_gru_crf,
}


def _as(module: nn.Module, x: Tensor) -> Tensor:
    return x.to(next(module.parameters()).dtype)


def _torch_geometric() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it scripts a class when it is imported
        warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)  # the same in torch 2.15
        import torch_geometric.nn
    return torch_geometric
