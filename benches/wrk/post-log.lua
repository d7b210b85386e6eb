-- POST /log with wrk (Debian's package `wrk`, https://github.com/wg/wrk): entries one by one, over connections
-- that stay open.
--
--   wrk -t1 -c64 -d30s -s benches/wrk/post-log.lua http://127.0.0.1:7650
--
-- The last line is one object: what was accepted (202), a second, and how long an answer took. Anything else
-- than 202, and every broken connection, counts as failed.

local KINDS = 1000
local LEVELS = { "info", "info", "info", "debug", "warn", "error" }
local WORDS = "request served from cache with status ok after waiting for a worker "
local all, at = {}, 0

function init()
  local headers = { ["Content-Type"] = "application/json" }
  for n = 1, KINDS do
    local message = ("n=%06d " .. WORDS .. WORDS):format(n):sub(1, 100)
    local body = ('{"level":"%s","message":"%s","service":"service-%d"}'):format(
      LEVELS[n % #LEVELS + 1], message, n * 7919 % 20)
    all[n] = wrk.format("POST", "/log", headers, body)
  end
end

function request()
  at = at % KINDS + 1
  return all[at]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  local accepted, seconds = summary.requests - errors.status, summary.duration / 1e6
  print(('{"accepted":%d,"failed":%d,"seconds":%.1f,"accepted_per_s":%.0f,"p50_us":%d,"p99_us":%d,"max_us":%d}'):format(
    accepted, failed, seconds, accepted / seconds, latency:percentile(50), latency:percentile(99), latency.max))
end
