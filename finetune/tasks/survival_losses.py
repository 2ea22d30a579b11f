"""Losses of survival: Cox's partial likelihood over all processes, and hazards in intervals of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from foundation.collectives import gather_rows, gather_sizes, own_rows, world_size


class Watched(NamedTuple):
    """Patients with a risk, the time to their event or censoring, whether the event happened, and a group number."""

    risk_B: Tensor
    time_B: Tensor
    event_B: Tensor
    group_B: Tensor


def cox_of_all(own: Watched, recent: Watched | None = None) -> tuple[Tensor, Watched]:
    """Cox's negative log partial likelihood per event, whose risk sets span the batches of all processes.

    Args:
        own: This process's patients.
        recent: Patients of earlier batches, the same on every process: they are at risk, and have no gradient. Those
            who are in this batch too are left out.

    Returns:
        This process's share: the sum over processes is the loss of the whole batch, and the gradient with respect to
        the own risks is that of this sum, so that the backward pass needs no collective. And the patients of all
        processes, detached. Without an event the loss is zero.
    """
    sizes = gather_sizes(len(own.risk_B), own.risk_B.device)
    everyone = Watched(*(gather_rows(column, sizes) for column in own))
    recent = recent and without(recent, everyone)
    with torch.enable_grad():
        risk_B = everyone.risk_B.clone().requires_grad_()
        loss = efron(everyone._replace(risk_B=risk_B), recent)
        (gradient_B,) = torch.autograd.grad(loss, risk_B)
    # Adds nothing to the value, and to the gradient what is known already.
    pull = ((own.risk_B - own.risk_B.detach()) * own_rows(gradient_B, sizes)).sum()
    return loss.detach() / world_size() + pull, everyone


def efron(patients: Watched, recent: Watched | None = None) -> Tensor:
    """Cox's negative log partial likelihood per event, with Efron's rule for equal times, stratified by group.

    Of m patients of a group who have the event at the same time, the l-th finds the share l / m of each of them gone
    (Efron 1977, The efficiency of Cox's likelihood function for censored data). Everybody of the same group whose time
    is not before is at risk.

    Args:
        patients: Those whose events are counted.
        recent: Others, who are only at risk.
    """
    risk_N, time_N, event_N, group_N = patients
    if recent is not None:
        # Nobody's event among them is counted.
        counted = torch.cat([event_N, torch.zeros_like(recent.event_B)])
        risk_N, time_N = torch.cat([risk_N, recent.risk_B.to(risk_N)]), torch.cat([time_N, recent.time_B])
        event_N, group_N = counted, torch.cat([group_N, recent.group_B])
    return RiskSets.of(time_N, event_N, group_N).loss(risk_N)


@dataclass(frozen=True)
class RiskSets:
    """Who is at risk at each of E events; found once for patients whose risks change, as they do in a fit.

    Attributes:
        order_R: [R] rows of the patients of groups with an event, group by group, each latest first.
        sizes: Rows of each of these groups.
        last_E: Place in `order_R` of the last who is at risk.
        event_E: Place of whose event it is.
        tie_E: Number of its time, among the times that events have within groups.
        gone_E: Share of those with an event at its time who are gone already.
        times: How many such times there are.
    """

    order_R: Tensor
    sizes: list[int]
    last_E: Tensor
    event_E: Tensor
    tie_E: Tensor
    gone_E: Tensor
    times: int

    @classmethod
    def of(cls, time_N: Tensor, event_N: Tensor, group_N: Tensor) -> RiskSets:
        """Of patients who were watched, N of them."""
        happened_N = event_N == 1
        _, group_N, rows_G = group_N.unique(return_inverse=True, return_counts=True)
        taught_G = rows_G.new_zeros(len(rows_G)).index_add(0, group_N, happened_N.to(rows_G)) > 0
        order_R = time_N.argsort(descending=True, stable=True)
        order_R = order_R[group_N[order_R].argsort(stable=True)]
        order_R = order_R[taught_G[group_N[order_R]]]
        event_E = happened_N[order_R].nonzero()[:, 0]
        # At risk are all up to the last of the same time.
        group_R, time_R = group_N[order_R], time_N[order_R]
        last_R = torch.ones_like(order_R, dtype=torch.bool)
        last_R[:-1] = (group_R[1:] != group_R[:-1]) | (time_R[1:] != time_R[:-1])
        tie_R = last_R.cumsum(0) - last_R.long()
        last_E = last_R.nonzero()[:, 0][tie_R[event_E]]
        _, tie_E, events_T = last_E.unique_consecutive(return_inverse=True, return_counts=True)
        place_E = torch.arange(len(tie_E), device=tie_E.device) - (events_T.cumsum(0) - events_T)[tie_E]
        gone_E = place_E / events_T[tie_E].to(torch.float64)
        return cls(order_R, rows_G[taught_G].tolist(), last_E, event_E, tie_E, gone_E, len(events_T))

    def loss(self, risk_N: Tensor) -> Tensor:
        """Efron's negative log partial likelihood per event; zero without one."""
        risk_R = risk_N[self.order_R]
        at_risk_R = torch.cat([risk_N[:0], *(part.logcumsumexp(0) for part in risk_R.split(self.sizes))])
        at_risk_E, risk_E = at_risk_R[self.last_E], risk_R[self.event_E]
        # Of what is at risk, the share of those whose event is at this time; never above 1, however large the risks.
        share_T = risk_E.new_zeros(self.times).index_add(0, self.tie_E, (risk_E - at_risk_E).exp())
        left_E = torch.log1p(-self.gone_E.to(risk_E.dtype) * share_T[self.tie_E])
        return (at_risk_E + left_E - risk_E).sum() / max(len(risk_E), 1)


def remember(recent: Watched, new: Watched, most: int) -> Watched:
    """The latest patients, at most `most`; of one who comes again, only the new risk.

    Somebody with the same group, time and event is taken to be the same patient.
    """
    kept = without(recent, new)
    return Watched(*(torch.cat([old, more])[-most:] for old, more in zip(kept, new, strict=True)))


def without(recent: Watched, new: Watched) -> Watched:
    """Those of `recent` who are not in `new`."""
    same_MN = recent.group_B[:, None] == new.group_B
    same_MN &= (recent.time_B[:, None] == new.time_B) & (recent.event_B[:, None] == new.event_B)
    stays_M = ~same_MN.any(dim=1)
    return Watched(*(column[stays_M] for column in recent))


def interval_log_likelihood(logits_BCT: Tensor, time_B: Tensor, cause_B: Tensor, cuts_T: Tensor) -> Tensor:
    """Logarithm [B] of the likelihood of what happened, by hazards that are probabilities within intervals of time.

    In each interval a patient has one of C events or none, by a softmax whose logit for none is 0. With one kind of
    event this is nnet-survival (Gensheimer and Narasimhan 2019, A scalable discrete-time survival model for neural
    networks); with several, cause-specific hazards as in Tutz and Schmid 2016, Modeling discrete time-to-event data.
    A censored patient has come through those intervals of which at least half was watched.

    Args:
        logits_BCT: [B, C, T] of each event in each interval.
        time_B: [B] to the event or to censoring.
        cause_B: [B] 0 censored, c for the c-th kind of event.
        cuts_T: [T + 1] edges of the intervals, from 0 on; an event after the last one counts as censored.
    """
    log_probability_BCT = log_hazards(logits_BCT)
    happened_B, place_B, through_BT = _lived(time_B, cause_B, cuts_T)
    survived_B = torch.where(through_BT, log_probability_BCT[:, 0], 0).sum(dim=1)
    ended_B = log_probability_BCT[torch.arange(len(time_B), device=time_B.device), cause_B, place_B]
    return survived_B + torch.where(happened_B, ended_B, 0)


def _lived(time_B: Tensor, cause_B: Tensor, cuts_T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether a patient's event happened within the cuts, in which interval, and which were come through [B, T]."""
    happened_B = (cause_B > 0) & (time_B <= cuts_T[-1])
    last = len(cuts_T) - 2
    # An interval contains its end: an event at the first cut after 0 is in the first interval.
    place_B = (torch.searchsorted(cuts_T, time_B.contiguous()) - 1).clamp(0, last)
    halfway_T = (cuts_T[:-1] + cuts_T[1:]) / 2
    before_BT = torch.arange(last + 1, device=time_B.device) < place_B[:, None]
    return happened_B, place_B, torch.where(happened_B[:, None], before_BT, time_B[:, None] >= halfway_T)


def observed_logits(time_N: Tensor, cause_N: Tensor, cuts_T: Tensor, prior_CT: Tensor) -> Tensor:
    """Logits [C, T] of each event in each interval as observed, drawn to a prior as by one more patient in each."""
    happened_N, place_N, through_NT = _lived(time_N, cause_N, cuts_T)
    probability_CT = log_hazards(prior_CT[None])[0].exp()
    ended_CT = probability_CT[1:].index_put(
        (cause_N[happened_N] - 1, place_N[happened_N]), probability_CT.new_ones(()), accumulate=True
    )
    return (ended_CT / (probability_CT[0] + through_NT.sum(dim=0))).log()


def log_hazards(logits_BCT: Tensor) -> Tensor:
    """Logarithm [B, 1 + C, T] of the probability of no event, and of each event, within each interval."""
    return torch.cat([torch.zeros_like(logits_BCT[:, :1]), logits_BCT], dim=1).log_softmax(dim=1)
