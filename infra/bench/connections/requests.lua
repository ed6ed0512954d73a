-- Sends GET requests, or with the argument `post` an order for each request, and prints one line.
local count = 0
local body = '{"customerId":"c-%d","lines":[{"sku":"S-%d","quantity":1,"unitPrice":{"amount":1250,"currency":"EUR"}}],'
  .. '"payment":{"token":"tok_visa"},"shipTo":{"name":"A. Lovelace","line1":"1 Main St","city":"Berlin",'
  .. '"postalCode":"10115","country":"DE"}}'

function init(arguments)
  if arguments[1] == "post" then
    request = function()
      count = count + 1
      local headers = { ["Content-Type"] = "application/json" }
      return wrk.format("POST", "/orders", headers, body:format(count % 1000, count % 50))
    end
  end
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format("requests=%d per second=%.0f p50=%.1f ms p99=%.1f ms errors=%d status=%d",
    summary.requests, summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
