"""A small Vision Transformer of our own (arXiv 2010.11929), by default the size of ViT-Lite-7/4 (arXiv 2104.05704).

Pre-norm blocks, a learned position embedding, and the mean of the tokens instead of a class token: at small scale it
is at least as good (arXiv 2205.01580), and 64 tokens stay 64. Nothing is dropped by default.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cifar_lab.models import ModelError
from cifar_lab.recipe.section import PositiveFloat, PositiveInt, Rate


def build(
    num_classes: int,
    image_size: int,
    *,
    patch_size: Annotated[PositiveInt, Field(description="Side of a patch in pixels; it divides the image size.")] = 4,
    width: Annotated[PositiveInt, Field(description="Length of a token's vector.")] = 256,
    depth: Annotated[PositiveInt, Field(description="Number of transformer blocks.")] = 7,
    heads: Annotated[PositiveInt, Field(description="Attention heads of a block; they must divide the width.")] = 4,
    mlp_ratio: Annotated[PositiveFloat, Field(description="Width of the MLP's hidden layer over `width`.")] = 2.0,
    dropout: Annotated[Rate, Field(description="Dropout after position embedding, attention and MLP.")] = 0.0,
    drop_path: Annotated[Rate, Field(description="Stochastic depth of the last block; it grows from 0.")] = 0.0,
) -> nn.Module:
    """ViT for (b, 3, image_size, image_size); raises ModelError for sizes that do not divide."""
    if image_size % patch_size:
        raise ModelError(f"patch_size {patch_size} does not divide image_size {image_size}")
    if width % heads:
        raise ModelError(f"heads {heads} does not divide width {width}")
    blocks = [
        Block(width, heads, round(width * mlp_ratio), dropout, drop_path * i / max(depth - 1, 1)) for i in range(depth)
    ]
    return VisionTransformer(num_classes, image_size // patch_size, patch_size, width, blocks, dropout)


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth (arXiv 1603.09382): zero a sample's branch with probability `rate`, else divide by 1 - rate.

    Drawn from the device's default generator, which the trainer seeds before each micro-batch.
    """
    if not training or rate == 0:
        return x
    keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - rate)
    return x * keep.div_(1 - rate)


class Attention(nn.Module):
    """Multi-head self-attention on (b, tokens, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and an MLP, each behind a LayerNorm, dropped out and added to its input."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        x = x + drop_path(self.dropout(self.attn(self.norm1(x))), self.drop_path, self.training)
        return x + drop_path(self.dropout(self.mlp(self.norm2(x))), self.drop_path, self.training)


class VisionTransformer(nn.Module):
    """Images (b, 3, S, S) to logits (b, num_classes); `grid` is S / patch_size."""

    def __init__(
        self, num_classes: int, grid: int, patch_size: int, width: int, blocks: list[Block], dropout: float
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.patch_embed = nn.Conv2d(3, width, patch_size, patch_size)
        self.pos_embed = nn.Parameter(torch.empty(1, grid * grid, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        self._init_weights()

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = self.dropout(x + self.pos_embed)
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.head(self.norm(x).mean(1))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are never decayed, as timm's models tell it."""
        return {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers for layer-wise decay, as timm's ViT: embeddings, each block (the last with the norm), classifier."""
        return {"stem": r"^patch_embed|^pos_embed", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}

    def adapt_weights(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights trained at another image size: their position embedding is resized to this grid (bicubic)."""
        source = state_dict.get("pos_embed")
        width, tokens = self.pos_embed.shape[2], self.pos_embed.shape[1]
        if source is None or source.ndim != 3 or source.shape[1] == tokens or source.shape[2] != width:
            return state_dict
        source_grid, grid = round(source.shape[1] ** 0.5), round(tokens**0.5)
        planes = source.unflatten(1, (source_grid, source_grid)).permute(0, 3, 1, 2)
        planes = F.interpolate(planes, (grid, grid), mode="bicubic", antialias=True)
        return {**state_dict, "pos_embed": planes.flatten(2).transpose(1, 2).contiguous()}
