"""What every layer rests on: processes, isolation, schedule, progress, registries, stored state."""
