"""A raw batch -> what is shown and what is hidden: on the device, a whole batch at a time, no network, one torch.Generator."""
