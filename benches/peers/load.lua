-- What wrk sends, and what it counted: wrk … -s load.lua URL -- KIND SIZE [FAULT]
-- KIND is one of
--   predict  a predict request of SIZE flowers
--   close    the same over a connection of its own
--   upload   a body of SIZE bytes
--   get
-- FAULT is the value of X-Agent-Fault, for an agent that was built with the feature fault-injection.
function init(arguments)
   local kind, size = arguments[1], tonumber(arguments[2])
   if kind ~= "get" then
      wrk.method = "POST"
      wrk.headers["Content-Type"] = "application/json"
   end
   if kind == "predict" or kind == "close" then
      wrk.body = '{"instances":[' .. string.rep("[5.1,3.5,1.4,0.2]", size, ",") .. "]}"
   elseif kind == "upload" then
      wrk.headers["Content-Type"] = "application/octet-stream"
      wrk.body = string.rep("x", size)
   end
   if kind == "close" then
      wrk.headers["Connection"] = "close"
   end
   if arguments[3] then
      wrk.headers["X-Agent-Fault"] = arguments[3]
   end
end

-- Requests, microseconds, bytes, errors, then p50, p90, p99 and p99.9 in microseconds. Read errors are apart, last: wrk
-- counts a connection that was closed as asked as one.
function done(summary, latency)
   local errors = summary.errors
   io.write(string.format("counted: %d %d %d %d %d %d %d %d %d\n",
      summary.requests, summary.duration, summary.bytes,
      errors.connect + errors.write + errors.status + errors.timeout,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9), errors.read))
end
