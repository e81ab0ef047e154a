"""Import this before torchvision, or lightly, which imports it, beside a CPU build of torch. It does nothing beside a CUDA build.

The wheels of torchvision link against CUDA, so the library of its C++ operators does not load beside a CPU build, and the import fails at
the first operator that its Python part mentions. Declaring the operators is enough for what is written in Python and on plain torch
(transforms, ResNets); to call one of them (nms, roi_align, ...) fails as before.

    pip install torch==2.13.0 && pip install --no-deps torchvision==0.28.0
    python -c "import torchvision_on_cpu, torchvision"
"""

import torch

_POOL = "SymInt pooled_height, SymInt pooled_width"
_SHAPE = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_CONV = (
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask"
)
_DEFORM = "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias"
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align(Tensor input, Tensor rois, float spatial_scale, {_POOL}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, {_POOL}, {_SHAPE}, int sampling_ratio, bool aligned) -> Tensor",
    f"ps_roi_align(Tensor input, Tensor rois, float spatial_scale, {_POOL}, int sampling_ratio) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, "
    f"{_POOL}, int sampling_ratio, {_SHAPE}) -> Tensor",
    f"roi_pool(Tensor input, Tensor rois, float spatial_scale, {_POOL}) -> (Tensor, Tensor)",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, {_POOL}, {_SHAPE}) -> Tensor",
    f"ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, {_POOL}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, {_POOL}, {_SHAPE}) -> Tensor",
    f"deform_conv2d({_DEFORM}, {_CONV}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, {_DEFORM}, {_CONV}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)

if torch.version.cuda is None:
    LIBRARY = torch.library.Library("torchvision", "DEF")  # the declarations live as long as this name
    for operator in OPERATORS:
        LIBRARY.define(operator)
