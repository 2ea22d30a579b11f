"""What makes maps of scans, one file each: a scan to [S, *grid], what each cell contributes to each score."""

from finetune.explain.images.explainers.grad_cam import grad_cam, grad_cam_plus_plus
from finetune.explain.images.explainers.integrated import integrated_gradients
from finetune.explain.images.explainers.occlusion import occlusion
from finetune.explain.images.explainers.relevance import relevance

EXPLAINERS = {
    "occlusion": occlusion,
    "integrated_gradients": integrated_gradients,
    "relevance": relevance,
    "grad_cam": grad_cam,
    "grad_cam_plus_plus": grad_cam_plus_plus,
}
"""By name; occlusion is what the others are held against."""

CALLED = {"relevance": "relevance of attention", "grad_cam": "Grad-CAM", "grad_cam_plus_plus": "Grad-CAM++"}
"""In sentences, where that is not the name."""


def called(explainer: str) -> str:
    """An explainer in a sentence."""
    return CALLED.get(explainer, explainer.replace("_", " "))


__all__ = ["EXPLAINERS", "called", "grad_cam", "grad_cam_plus_plus", "integrated_gradients", "occlusion", "relevance"]
