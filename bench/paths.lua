-- For wrk: each request asks for another path.
local number = 0

request = function()
  number = number + 1
  return wrk.format("GET", "/item/" .. number)
end
