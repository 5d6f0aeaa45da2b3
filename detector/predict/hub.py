"""Share detectors on the Hugging Face Hub; needs ``pip install "lightning-dyn-detector[hub]"``."""

import json
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download

from detector.network.head import BranchName
from detector.network.model import Detector
from detector.predict.predictor import Predictor, load_detector
from detector.text import plural
from detector.weights import WeightsInfo, metadata, save_weights

WEIGHTS_FILE = "model.safetensors"


class HubPredictor(Predictor, ModelHubMixin):
    """A Predictor that can be pushed to the Hub and loaded from there, with a model card made from its metadata.

    ``HubPredictor.from_file("best.ckpt").push_to_hub("me/cells")``, then ``HubPredictor.from_pretrained("me/cells")``.
    Weights travel as safetensors. ``save_pretrained`` and ``from_pretrained`` also work on folders, without a network.
    """

    def __init__(self, model: Detector, info: WeightsInfo, branch: BranchName = "one2one", source: str = "") -> None:
        # No argument image_size: the mixin would set it from the entry of that name in config.json.
        super().__init__(model, info, branch, source)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Load any file that ``load_detector`` takes."""
        predictor = load_detector(path)
        return cls(predictor.model, predictor.info, predictor.branch, predictor.source)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(save_directory / WEIGHTS_FILE, self.model.state_dict(), self.info)
        # config.json is for readers and the Hub's count of downloads; loading takes the metadata from the weights file.
        (save_directory / "config.json").write_text(json.dumps(metadata(self.info), indent=1) + "\n")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> Self:
        if Path(model_id).is_dir():
            return cls.from_file(Path(model_id) / WEIGHTS_FILE)
        path = hf_hub_download(
            model_id,
            WEIGHTS_FILE,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return cls.from_file(path)

    def generate_model_card(self, **_: Any) -> ModelCard:
        """Return the model card: variant, provenance, license, metrics, classes and an example."""
        info = self.info
        license = info.license.split()[0].lower() if info.license else None
        tags = ["object-detection", "pytorch-lightning", info.variant]
        data = ModelCardData(
            license=license, library_name="lightning-dyn-detector", pipeline_tag="object-detection", tags=tags
        )
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{card_text(self)}")


def card_text(predictor: Predictor) -> str:
    """Return the model card in Markdown, without its header."""
    info = predictor.info
    height, width = predictor.image_size
    classes = "\n".join(f"| {i} | {name} |" for i, name in zip(predictor.category_ids, predictor.class_names))
    metrics = "\n".join(f"| {name} | {value:.4f} |" for name, value in info.metrics.items())
    images = f"\n- Images of the pre-training: {info.images_of_pretraining}" if info.images_of_pretraining else ""
    results = f"| | pycocotools |\n|---|---|\n{metrics}" if metrics else "None are recorded in the checkpoint."
    return f"""# {info.variant}, {plural(len(predictor.class_names), "class", "classes")}

An object detector of lightning-dyn-detector: {info.variant}, network input {height} x {width} pixels (height x width).

- Provenance: {info.provenance}
- License of the weights: {info.license or "not stated"}{images}
- Score threshold of the best F1 on the validation set: {info.describe_best_f1(predictor.branch)}

## Results on the validation set

{results}

## Classes

| id | name |
|---|---|
{classes}

## Use

```python
from detector.predict.hub import HubPredictor

predictor = HubPredictor.from_pretrained("this/repository")
(detections,) = predictor("image.jpg")  # score_threshold=0.25; "best" is that of the best F1
```
"""
