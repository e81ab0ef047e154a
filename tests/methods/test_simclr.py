"""SimCLR: views, heads, and one toy problem it must solve; its loss is in tests/test_losses.py."""

import json
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfsup.losses import nt_xent
from selfsup.method import Encoder
from selfsup.methods.simclr import SimCLR
from selfsup.models import build_encoder
from selfsup.models.kept_head import with_head


class TinyEncoder(Encoder):
    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, self.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_it_learns_to_find_the_partner(find_partners: Callable[..., tuple[float, float, Callable[[], float]]]) -> None:
    _, after, _ = find_partners(
        lambda: SimCLR(TinyEncoder(), image_size=8, temperature=0.1, hidden_size=32, projection_size=16), lr=1e-2, steps=100
    )
    assert after > 0.4, f"{after:.2f} of partners found; 0.12 before training, chance is 0.03"


def test_a_run_of_version_2_goes_on_with_the_same_crops() -> None:
    """Its encoder comes back with the kept layer on it, and is still one that averages over any number of places."""
    begun = SimCLR(build_encoder("small", channels=3, image_size=32), image_size=32, version=2)
    resumed = SimCLR(build_encoder(**begun.encoder.spec), image_size=32, version=2)
    assert [m.views.first.size for m in (begun, resumed)] == [24, 24]
    vit = with_head(build_encoder("vit_tiny", channels=3, image_size=32), hidden_size=8, layers=1)
    with pytest.raises(ValueError, match="a multiple of the vit's patch of 4 pixels"):
        SimCLR(vit, image_size=32, version=2, hidden_size=8, crop_size=30)


def test_the_loss_is_that_of_all_views_and_its_gradient_too() -> None:
    method = SimCLR(TinyEncoder(), image_size=8, temperature=0.3).double()
    first, second = torch.rand(2, 5, 3, 8, 8, dtype=torch.float64)
    z = method.projector(method.encoder(torch.cat([first, second])))
    expected = nt_xent(*z.chunk(2), 0.3)
    loss = method.loss({"first": first, "second": second})
    torch.testing.assert_close(loss, expected)
    weights = [p for p in method.parameters() if p.requires_grad]
    for mine, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_information_is_none_where_all_images_are_the_same() -> None:
    method = SimCLR(TinyEncoder(), image_size=8, crops=3).eval()
    views = dict.fromkeys(("first", "second", "third"), torch.ones(4, 3, 8, 8)) | {"index": torch.arange(4)}
    [update] = method.updates(views)
    assert float(update.loss.detach()) == pytest.approx(
        math.log(3 * 3 + 1)
    )  # the partner, and three views of each of the three other images
    assert float(update.metrics["information"]) == pytest.approx(0.0, abs=1e-6)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        SimCLR(TinyEncoder(), temperature=0.0)
    with pytest.raises(ValueError, match="kept_layers must be 0 to 1 in version 1, whose projector has 1 hidden, got 2"):
        SimCLR(TinyEncoder(), kept_layers=2)


def test_the_head_is_dropped_after_training() -> None:
    method = SimCLR(TinyEncoder(), image_size=8)
    x = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(method.embed(x), method.encoder(x))


def test_version_2_keeps_the_first_layer_of_a_deeper_head() -> None:
    first, second = (SimCLR(TinyEncoder(), image_size=8, version=v, hidden_size=24, projection_size=6) for v in (1, 2))

    def hidden(module: nn.Module) -> list[tuple[int, int]]:
        return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]

    assert hidden(first.projector) == [(16, 24), (24, 6)]
    assert isinstance(first.encoder, TinyEncoder)
    assert hidden(second.projector) == [(24, 24), (24, 6)]
    assert hidden(second.encoder) == [(3 * 8 * 8, 16), (16, 24)]
    second.eval()
    x = torch.rand(4, 3, 8, 8)
    f, (linear, norm, relu) = second.encoder.encoder, second.encoder.head  # type: ignore[misc]
    torch.testing.assert_close(second.embed(x), torch.relu(norm(linear(f(x)))))
    assert isinstance(relu, nn.ReLU)
    z = second.projector(second.encoder(x))
    torch.testing.assert_close(second.loss({"first": x[:2], "second": x[2:]}), nt_xent(z[:2], z[2:], 0.1))
    assert second.encoder.width == second.embed(x).shape[1] == 24


@pytest.mark.parametrize(("version", "kept", "width"), [(1, 1, 24), (2, 0, 16), (2, 2, 24)])
def test_how_much_of_the_head_is_kept_is_a_choice(version: int, kept: int, width: int) -> None:
    method = SimCLR(TinyEncoder(), image_size=8, version=version, kept_layers=kept, hidden_size=24, projection_size=6)
    assert method.encoder.width == width
    layers = [m for m in (*method.encoder.modules(), *method.projector.modules()) if isinstance(m, nn.Linear)]
    assert len(layers) == 1 + 1 + version  # the encoder's own, and the whole head


def test_the_spec_of_version_2_builds_the_kept_encoder_again() -> None:
    encoder = SimCLR(build_encoder("small", channels=3, image_size=8), image_size=8, version=2, hidden_size=24).encoder.eval()
    again = build_encoder(**json.loads(json.dumps(encoder.spec))).eval()
    again.load_state_dict(encoder.state_dict())
    x = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(again(x), encoder(x))
    assert with_head(again, hidden_size=24, layers=1) is again  # a run that goes on builds it from its spec
    with pytest.raises(ValueError, match=r"expected an encoder with 2 layers of 24 on it.*got one with 1 layers of 24"):
        with_head(again, hidden_size=24, layers=2)


def test_views_are_two_different_crops_of_the_same_images() -> None:
    method = SimCLR(TinyEncoder(), image_size=8)
    images = torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8)
    views = method.views({"image": images}, torch.Generator().manual_seed(0))
    assert views["first"].shape == views["second"].shape == (6, 3, 8, 8)
    assert not torch.allclose(views["first"], views["second"])


def test_further_crops_are_further_views() -> None:
    method = SimCLR(TinyEncoder(), image_size=8, crops=4)
    images = torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8)
    views = method.views({"image": images, "index": torch.arange(6)}, torch.Generator().manual_seed(0))
    shown = [views[name] for name in ("first", "second", "third", "fourth")]
    assert len(views) == 5
    assert not any(torch.allclose(a, b) for i, a in enumerate(shown) for b in shown[:i])
    z = F.normalize(method.projector(method.encoder(torch.cat(shown))), dim=1).detach().view(4, 6, -1)
    scores = torch.einsum("vbd,wcd->vbwc", z, z) / method.temperature
    total = 0.0
    for v in range(4):
        for b in range(6):
            noise = scores[v, b][:, [c for c in range(6) if c != b]].exp().sum()
            total -= sum(float((scores[v, b, w, b].exp() / (scores[v, b, w, b].exp() + noise)).log()) for w in range(4) if w != v)
    torch.testing.assert_close(method.loss(views).detach(), torch.tensor(total / (4 * 3 * 6)))
    with pytest.raises(ValueError, match="crops must be 2 to 8, got 1"):
        SimCLR(TinyEncoder(), crops=1)
