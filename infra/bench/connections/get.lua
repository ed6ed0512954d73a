function done(summary, latency)
  local errors = summary.errors
  print(string.format("requests=%d per second=%.0f p50=%.1f ms p99=%.1f ms errors=%d status=%d",
    summary.requests, summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
