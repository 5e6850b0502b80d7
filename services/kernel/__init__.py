"""What every service stands on: event store, bus, projections, rpc, guard, telemetry, config."""
