"""The custom ViT's own mechanisms."""

import pytest
import torch

from cifar_lab.models.families import vit


def small(**args):
    return vit.build(10, 32, **{"width": 16, "depth": 3, "heads": 2} | args)


@pytest.mark.parametrize(("image_size", "patch_size"), [(32, 4), (32, 8), (48, 4), (224, 16)])
def test_one_token_a_patch(image_size, patch_size):
    model = vit.build(10, image_size, patch_size=patch_size, width=16, depth=1, heads=2)
    assert model.pos_embed.shape == (1, (image_size // patch_size) ** 2, 16)
    assert model(torch.randn(2, 3, image_size, image_size)).shape == (2, 10)


def test_attention_is_softmax_attention():
    attention = vit.Attention(8, 2)
    x = torch.randn(2, 5, 8)
    q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in attention.qkv(x).chunk(3, -1))
    mixed = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
    torch.testing.assert_close(attention(x), attention.proj(mixed.transpose(1, 2).reshape(2, 5, 8)))


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    out = vit.drop_path(torch.ones(4000, 3, 2), 0.25, training=True)
    per_sample = out.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert per_sample[:, 0].unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1, abs=0.04)
    assert torch.equal(vit.drop_path(out, 0.25, training=False), out)


def test_drop_path_grows_linearly_and_follows_the_seed():
    model = small(drop_path=0.4).train()
    assert [block.drop_path for block in model.blocks] == pytest.approx([0.0, 0.2, 0.4])
    images = torch.randn(8, 3, 32, 32)

    def logits(seed):
        torch.manual_seed(seed)
        return model(images)

    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))


def test_nothing_is_dropped_by_default():
    model = small().train()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), model(images))
    assert not torch.equal(*(small(dropout=0.5).train()(images) for _ in range(2)))


def test_gradient_checkpointing_changes_no_gradient():
    """Dropout and drop path included: the recomputation sees the same draws."""
    model = small(dropout=0.3, drop_path=0.3).train()
    images = torch.randn(4, 3, 32, 32)

    def gradients(enable):
        model.set_grad_checkpointing(enable)
        torch.manual_seed(0)
        model.zero_grad()
        calls = []
        handle = model.blocks[0].attn.register_forward_hook(lambda *_: calls.append(1))
        model(images).square().sum().backward()
        handle.remove()
        return [p.grad.clone() for p in model.parameters()], len(calls)

    (plain, once), (recomputed, twice) = gradients(False), gradients(True)
    assert (once, twice) == (1, 2)
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))


def test_position_embedding_is_resized_for_another_image_size():
    source = small()
    ramp = torch.linspace(0, 1, 8).repeat(8).reshape(1, 64, 1).expand(1, 64, 16)  # grows from left to right
    weights = source.state_dict() | {"pos_embed": ramp.contiguous()}
    target = vit.build(10, 64, width=16, depth=3, heads=2)
    resized = target.adapt_weights(weights)["pos_embed"]
    assert resized.shape == target.pos_embed.shape == (1, 256, 16)
    grid = resized.reshape(16, 16, 16)
    torch.testing.assert_close(grid, grid[:1].expand_as(grid))
    assert (grid[0].diff(dim=0) > -1e-3).all()
    assert source.adapt_weights(weights) is weights
