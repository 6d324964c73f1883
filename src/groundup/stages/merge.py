"""An adapter folded into its base: a plain Hugging Face folder."""

from __future__ import annotations

from typing import Any

from groundup import console
from groundup.errors import UserError
from groundup.export import merge_adapter
from groundup.stages.context import Context
from groundup.stages.models import find_model


def run(context: Context) -> dict[str, Any]:
    """Write `final/`; the merged model's logits are compared with the adapter's."""
    source = find_model(context, context.settings.from_)
    if source.adapter is None:
        raise UserError(
            f"stage {context.name} has nothing to merge: '{context.settings.from_}' is a whole model",
            where=str(source.base),
            fix="leave this stage out, or name an adapter in its from",
        )
    result = merge_adapter(source.adapter, source.base, context.stage.final)
    console.say(
        f"  merged; its logits differ from the adapter's by at most {result['max_logit_difference']:.1e}"
    )
    return {"kind": "merge", **result}
