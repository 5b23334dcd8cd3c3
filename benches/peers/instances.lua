-- A predict request of N flowers: wrk … -s instances.lua URL -- N
function init(arguments)
    local flowers = string.rep("[5.1,3.5,1.4,0.2]", tonumber(arguments[1] or 1), ",")
    wrk.method = "POST"
    wrk.body = '{"instances":[' .. flowers .. "]}"
    wrk.headers["Content-Type"] = "application/json"
end
