"""The block DCT against its defining sums."""

import math

import pytest
import torch

from archspec.blocks.dct import BlockDct, InverseBlockDct, dct_basis


@pytest.fixture(autouse=True)
def _double():
    """Build in float64, so that the kernels are exact."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def a(frequency: int, place: int, block: int) -> float:
    scale = math.sqrt((1 if frequency == 0 else 2) / block)
    return scale * math.cos((place + 0.5) * frequency * math.pi / block)


def plain_dct(x, block, kept):
    B, C, H, W = x.shape
    out = torch.zeros(B, C * kept * kept, H // block, W // block)
    for b, c, y, z in torch.cartesian_prod(*map(torch.arange, (B, C, H // block, W // block))).tolist():
        for v in range(kept):
            for u in range(kept):
                total = 0.0
                for i in range(block):
                    for j in range(block):
                        pixel = x[b, c, y * block + i, z * block + j].item()
                        total += pixel * a(v, i, block) * a(u, j, block)
                out[b, c * kept * kept + v * kept + u, y, z] = total
    return out


def plain_inverse(coefficients, block, kept):
    B, channels, h, w = coefficients.shape
    C = channels // kept**2
    out = torch.zeros(B, C, h * block, w * block)
    for b, c, y, z in torch.cartesian_prod(*map(torch.arange, (B, C, h * block, w * block))).tolist():
        for v in range(kept):
            for u in range(kept):
                f = coefficients[b, c * kept * kept + v * kept + u, y // block, z // block].item()
                out[b, c, y, z] += f * a(v, y % block, block) * a(u, z % block, block)
    return out


@pytest.mark.parametrize("form", ["conv", "matmul"])
@pytest.mark.parametrize(("block", "kept"), [(4, 2), (3, 2), (2, 2)])
def test_both_directions_equal_the_sums(form, block, kept):
    x = torch.randn(2, 3, 2 * block, 3 * block)
    coefficients = BlockDct(3, block, kept, form)(x)
    torch.testing.assert_close(coefficients, plain_dct(x, block, kept), rtol=0, atol=1e-12)
    free = torch.randn_like(coefficients)
    restored = InverseBlockDct(3, block, kept, form)(free, x.shape[2:])
    torch.testing.assert_close(restored, plain_inverse(free, block, kept), rtol=0, atol=1e-12)


def test_forms_agree_at_the_released_size():
    x = torch.randn(2, 5, 24, 16)
    one, other = (BlockDct(5, 8, 4, form)(x) for form in ("conv", "matmul"))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    back, forth = (InverseBlockDct(5, 8, 4, form)(one, (24, 16)) for form in ("conv", "matmul"))
    torch.testing.assert_close(back, forth, rtol=0, atol=1e-12)


def test_coefficients_are_channel_major_then_row_then_column_frequency():
    rows, columns = torch.arange(8.0)[:, None].expand(8, 8), torch.arange(8.0).expand(8, 8)
    wave = torch.cos((rows + 0.5) * 2 * math.pi / 8) * torch.cos((columns + 0.5) * math.pi / 8)  # v = 2, u = 1
    x = torch.stack([torch.zeros(8, 8), wave])[None]
    for form in ("conv", "matmul"):
        coefficients = BlockDct(2, 8, 4, form)(x).flatten()
        assert coefficients.abs().argmax() == 16 + 2 * 4 + 1
        assert coefficients.abs().gt(1e-12).sum() == 1


def test_kernels_are_those_of_the_released_checkpoints():
    dct, inverse = BlockDct(2, 8, 4, "conv").transform.weight, InverseBlockDct(2, 8, 4, "conv").transform.weight
    assert dct.shape == (2 * 16, 1, 8, 8)
    assert inverse.shape == (2 * 64, 16, 1, 1)
    assert not dct.requires_grad
    assert not inverse.requires_grad
    stored = {0: 0.125, 1: -0.14698444, 4: 0.03448742, 15: -0.02709659}  # row of the kernel: its pixel (3, 6)
    for row, value in stored.items():
        assert dct[16 + row, 0, 3, 6].item() == pytest.approx(value, abs=1e-7)
        assert inverse[64 + 3 * 8 + 6, row].item() == pytest.approx(value, abs=1e-7)
    assert dct[16 + 6, 0, 2, 5].item() == pytest.approx(a(1, 2, 8) * a(2, 5, 8))
    assert inverse[64 + 2 * 8 + 5, 6].item() == pytest.approx(a(1, 2, 8) * a(2, 5, 8))


def test_matmul_form_stores_nothing():
    assert not BlockDct(4, 8, 4, "matmul").state_dict()
    assert not InverseBlockDct(4, 8, 4, "matmul").state_dict()


def test_basis_is_orthonormal_and_in_the_default_dtype():
    basis = dct_basis(7, 7)
    torch.testing.assert_close(basis @ basis.t(), torch.eye(7), rtol=0, atol=1e-14)
    torch.set_default_dtype(torch.float32)
    assert torch.equal(dct_basis(7, 7), basis.float())


@pytest.mark.parametrize("form", ["conv", "matmul"])
def test_other_sizes_are_padded_with_zeros_and_cropped(form):
    x = torch.randn(1, 2, 5, 7)
    padded = torch.zeros(1, 2, 8, 8)
    padded[:, :, :5, :7] = x
    dct, inverse = BlockDct(2, 4, 4, form), InverseBlockDct(2, 4, 4, form)
    torch.testing.assert_close(dct(x), dct(padded))
    torch.testing.assert_close(inverse(dct(x), (5, 7)), x)  # all frequencies kept: exact
