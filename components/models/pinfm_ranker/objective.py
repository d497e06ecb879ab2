"""What PinFM adds to the ranker's loss: its own ranking loss, agreement with the ranker, and the next token.

Shapes: U histories of L events, oldest first, padding behind; D width; P moments, C items, K pairs of the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.contract import Ties
from components.history.statistics import DAY
from components.models.pinfm.model import PinFM
from components.models.pinfm.negatives import Batched, ItemCounts
from components.models.pinfm.objective import info_nce
from components.models.pinfm.segments import chosen
from components.models.pinfm.steps import Pairs, Steps
from components.models.ranker.batch import RankingBatch


@dataclass(frozen=True)
class Events:
    """Histories as PinFM reads them.

    Attributes:
        key_UL: int64 keys of items, -1 = none; action_UL, surface_UL, time_UL: int64; length_U: int64 events. What is
            behind them is padding: key -1, else 0.
    """

    key_UL: Tensor
    action_UL: Tensor
    surface_UL: Tensor
    time_UL: Tensor
    length_U: Tensor

    @classmethod
    def newest(cls, batch: RankingBatch, most: int, *, daily: bool = False) -> Events:
        """The newest `most` actions of each request's user, turned round: sequences are newest first.

        Args:
            daily: of those before the request's UTC midnight.
        """
        s = batch.sequence
        there_UL = s.action_UL > 0
        midnight_U1 = s.request_time_U[:, None] // DAY * DAY
        later_U = (there_UL & (s.timestamp_UL >= midnight_U1)).sum(1) * daily
        length_U = (there_UL.sum(1) - later_U).clamp(max=most)
        place = torch.arange(min(most, s.action_UL.shape[1]), device=length_U.device)
        oldest_first = ((later_U + length_U)[:, None] - 1 - place).clamp(min=0)
        behind_UL = place >= length_U[:, None]
        columns = ((s.item_key_UL, -1), (s.action_UL, 0), (s.surface_UL, 0), (s.timestamp_UL, 0))
        key, action, surface, time = (c.gather(1, oldest_first).masked_fill(behind_UL, none) for c, none in columns)
        return cls(key, action, surface, time, length_U)

    def rows(self, index: Tensor) -> Events:
        """Some of the histories."""
        return Events(*(t[index] for t in vars(self).values()))


def alignment(own_BH: Tensor, final_BH: Tensor) -> Tensor:
    """Mean squared difference of the probabilities that logits stand for."""
    return (torch.sigmoid(own_BH) - torch.sigmoid(final_BH)).square().mean()


@dataclass(frozen=True)
class NextToken:
    """L_ntl (section 3.2) on the histories of a ranking batch.

    A moment is an action, or where equal times are unordered all actions at a time; it predicts the positive items of
    the next one. What else the batch's users chose, but not this user, stands against them, as in the pretraining of
    the base (`log_q`, `exclude_same_user`). Of a user's histories only the longest counts.

    Attributes:
        counts: how often each item is a positive, for the correction of how often it is drawn as a negative.
        positive: indices of the positive actions.
        positions: moments drawn, at most.
    """

    counts: ItemCounts
    positive: tuple[int, ...]
    ties: Ties
    positions: int

    def __call__(self, base: PinFM, state_ULD: Tensor, events: Events, user_U: Tensor) -> Tensor:
        """Mean over moments of the mean over their next items, a scalar.

        Args:
            state_ULD: the decoder's, of `events`.
            user_U: int64, equal for histories of one user.
        """
        history, place = _longest(user_U, events.length_U)
        key, action, time = (t.cpu().numpy()[history, place] for t in (events.key_UL, events.action_UL, events.time_UL))
        positive = chosen(key, action, self.positive)
        none = Pairs.mean(np.zeros(0, np.int64), np.zeros(0, np.int64))
        pairs = Steps.of(history, key, time, positive, self.ties).next_token() if len(history) else none
        drawn = self._some(pairs.source)
        source, target = pairs.source[drawn], pairs.target[drawn]
        found = Batched.of(base.config, self.counts, key, history, positive, source, target)
        h_PD = base.outputs(state_ULD[history[found.source_P], place[found.source_P]])
        device = state_ULD.device
        z_CD = base.targets(base.embed(torch.from_numpy(found.item_C).to(device)))
        if not len(source):
            return 0 * (h_PD.sum() + z_CD.sum() + base.temperature)
        rest = (found.own_OC[found.owner_P], found.log_q_C, found.source_K, found.target_K)
        each_K = info_nce(h_PD, z_CD, base.temperature, *(torch.from_numpy(a).to(device) for a in rest))
        return (each_K * torch.from_numpy(Pairs.mean(source, target).weight).to(device)).sum()

    def _some(self, source: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which pairs to keep, so that at most `positions` sources remain."""
        distinct = np.unique(source)
        if len(distinct) <= self.positions:
            return np.ones(len(source), bool)
        drawn = torch.randperm(len(distinct))[: self.positions].numpy()
        return np.isin(source, distinct[drawn])


def _longest(user_U: Tensor, length_U: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """History and place in it of each event of every user's longest history. [M] each.

    Requests of one user repeat one history, a little longer each time: read all, an event would count once a request.
    """
    length = length_U.cpu().numpy()
    order = np.argsort(-length, kind="stable")
    kept = np.sort(order[np.unique(user_U.cpu().numpy()[order], return_index=True)[1]])
    size = length[kept]
    return np.repeat(kept, size), np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
