-- Takes tokens from nested buckets, all or nothing at each level, by the clock of Redis alone.
-- KEYS  the bucket of the route, the buckets of the levels below it that have a limit, last the set of live senders.
-- ARGV  lane (t or b), want, slice in µs, instance ('' = not now), horizon of reservations in µs, then rate and capacity per bucket.
-- ->    {granted, µs until they may be used, index of the bucket that ran short (0: none), µs until it has one token, live senders}
local lane, want, slice, instance, ahead = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local SECOND, SHARE, CLIMB = 1000000, 0.2, 0.05
local function text(n) return string.format('%.0f', n) end
local function decimal(n) return string.format('%.9f', n) end -- not every Lua reads 1e-05
local function whole(n) return math.floor(n + 1e-9) end -- what rounding took is not missing

local t = redis.call('TIME')
local now = t[1] * SECOND + t[2]
local levels = #KEYS - 1
local route = redis.call('HMGET', KEYS[1], 'k', 't', 'f', 'ft', 'b', 'bw', 'd', 'dw', 'n')

-- How many processes share the route: who took tokens within the last three seconds, or may be asleep until its token is due.
local senders = tonumber(route[9]) or 1
if instance ~= '' then
  local live = KEYS[#KEYS]
  redis.call('ZADD', live, text(now), instance)
  redis.call('ZREMRANGEBYSCORE', live, '-inf', text(now - 3 * SECOND - 2 * (senders + 1) * SECOND / tonumber(ARGV[6])))
  redis.call('ZREMRANGEBYSCORE', live, '(' .. text(now + SECOND), '+inf')
  redis.call('PEXPIRE', live, 60000)
  senders = redis.call('ZCARD', live)
end

-- A carrier that throttles has halved the rate; it climbs back by a twentieth of the full rate a second.
local factor, since = tonumber(route[3]) or 1, tonumber(route[4]) or now
if since > now + SECOND then -- the clock went back
  since = now
  redis.call('HSET', KEYS[1], 'ft', text(now))
end
factor = math.min(1, factor + math.max(0, now - since) / SECOND * CLIMB)

local rate, cap, tok, at, refill = {}, {}, {}, {}, {}
local slowest = math.huge
for i = 1, levels do
  local r, c = tonumber(ARGV[4 + 2 * i]), tonumber(ARGV[5 + 2 * i])
  local v = route
  if i == 1 then
    r, c = r * factor, math.max(1, c * factor)
  else
    v = redis.call('HMGET', KEYS[i], 'k', 't')
  end
  local k, last = tonumber(v[1]) or c, tonumber(v[2]) or now
  if last > now + SECOND then last = now end -- the clock went back: start again from now, without a refill
  refill[i] = math.max(0, now - last) * r / SECOND
  rate[i], cap[i], tok[i], at[i] = r, c, math.min(c, k + refill[i]), math.max(now, last)
  if r < slowest then slowest = r end
end

-- Lanes. b: what the bulk lane may take even while the transactional lane waits, a fifth of the rate. d: what the
-- transactional lane waits for. dw, bw: until when the one and the other lane counts as waiting.
local share = math.max(1, SHARE * cap[1])
local b = math.min(share, (tonumber(route[5]) or share) + refill[1] * SHARE)
local function waits(till) return till > now and till < now + 60 * SECOND end -- later than that: the clock went back
local bw, d, dw = tonumber(route[6]) or 0, tonumber(route[7]) or 0, tonumber(route[8]) or 0
if not waits(dw) then d = 0 end

local free, lack = {}, {} -- whole tokens, and µs until there is one
for i = 1, levels do
  free[i] = math.max(0, whole(tok[i]))
  lack[i] = math.max(0, math.ceil((1 - tok[i]) / rate[i] * SECOND))
end
if lane == 'b' and d > 0 then
  free[1] = math.max(math.min(free[1], whole(b)), free[1] - math.ceil(d))
  local byShare = math.max(lack[1], math.ceil((1 - b) / (SHARE * rate[1]) * SECOND))
  local byRest = math.ceil((1 + d - tok[1]) / rate[1] * SECOND)
  if free[1] < 1 then lack[1] = math.max(0, math.min(byShare, byRest)) end
elseif lane == 't' and waits(bw) then
  local kept = math.min(free[1], whole(b))
  free[1] = free[1] - kept
  if free[1] < 1 then lack[1] = math.max(0, math.ceil((1 + kept - tok[1]) / rate[1] * SECOND)) end
end

local most = math.min(want, math.max(1, whole(slowest * slice / SECOND / senders)))
local granted, short = most, 0
for i = 1, levels do
  if free[i] < granted then granted, short = free[i], i end
end
local ready, wait = 0, 0
if granted > 0 then
  if short > 0 then wait = math.ceil((1 - (tok[short] - granted)) / rate[short] * SECOND) end
else
  for i = 1, levels do
    if lack[i] > wait or i == 1 then short, wait = i, lack[i] end
  end
  -- Below 100 a second a waiter gets the time of its token, and sleeps once. On the route the bulk lane reserves one token
  -- ahead for each process, else the transactional lane would queue behind it; when its share is due it goes behind all others.
  if rate[short] < 100 then
    local each = tok[1] >= 1 - senders
    local may = wait <= ahead or short == 1 and each
    if short == 1 and lane == 'b' then
      may = each or b >= 1 and wait <= 2 * math.max(ahead, senders / rate[1] * SECOND)
      if not may then
        wait = math.max(1, math.min(wait - math.floor(senders / rate[1] * SECOND), math.ceil((1 - b) / (SHARE * rate[1]) * SECOND)))
      end
    end
    if may then granted, ready, short = 1, wait, 0 end
  end
end

if granted > 0 then
  for i = 1, levels do tok[i] = tok[i] - granted end
  if lane == 'b' then b = math.max(0, b - granted) else d = math.max(0, d - granted) end
end
if short == 1 then
  local still = now + math.max(SECOND / 10, 2 * wait)
  if lane == 'b' then bw = still else d, dw = math.max(d, most - granted), still end
end

local state = {KEYS[1], 'k', decimal(tok[1]), 't', text(at[1]), 'b', decimal(b), 'bw', text(bw), 'd', decimal(d), 'dw', text(dw), 'n', senders}
redis.call('HSET', unpack(state))
for i = 2, levels do redis.call('HSET', KEYS[i], 'k', decimal(tok[i]), 't', text(at[i])) end
for i = 1, levels do redis.call('PEXPIRE', KEYS[i], math.ceil(cap[i] / rate[i] * 1000) + 60000) end
return {granted, ready, short, wait, senders}
