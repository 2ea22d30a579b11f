"""What makes maps of scans, one file each: a scan to [S, *grid], what each cell contributes to each score."""

from finetune.explain.images.explainers.integrated import integrated_gradients
from finetune.explain.images.explainers.occlusion import occlusion
from finetune.explain.images.explainers.relevance import relevance

EXPLAINERS = {
    "occlusion": occlusion,
    "integrated gradients": integrated_gradients,
    "attention relevance": relevance,
}
"""By name; occlusion is what the others are held against."""

__all__ = ["EXPLAINERS", "integrated_gradients", "occlusion", "relevance"]
