-- Halves the rate of a route's bucket, at most once a second: the answers of one burst are one complaint.
-- KEYS  the bucket of the route. ARGV the least factor.
-- ->    the factor in thousandths
local SECOND, CLIMB = 1000000, 0.05
local t = redis.call('TIME')
local now = t[1] * SECOND + t[2]
local v = redis.call('HMGET', KEYS[1], 'f', 'ft', 'k')
local factor, since = tonumber(v[1]) or 1, tonumber(v[2])
if since then
  if now >= since and now - since < SECOND then return math.floor(factor * 1000) end
  factor = math.min(1, factor + math.max(0, now - since) / SECOND * CLIMB)
end
factor = math.max(tonumber(ARGV[1]), factor / 2)
redis.call('HSET', KEYS[1], 'f', string.format('%.9f', factor), 'ft', string.format('%.0f', now))
-- What was saved up is gone: the slower pace begins now. What is reserved stays so.
if (tonumber(v[3]) or 1) > 0 then redis.call('HSET', KEYS[1], 'k', '0', 't', string.format('%.0f', now)) end
redis.call('PEXPIRE', KEYS[1], 120000)
return math.floor(factor * 1000)
