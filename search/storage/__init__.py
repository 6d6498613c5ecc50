"""Storage at a URL: copies of sweeps, and features that nodes bring to their own disks."""
