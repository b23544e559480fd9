-- The tracker's side: returns the submission (16 bytes, and 2 of a part) of a provider id, or parks the receipt and returns an empty string.
-- The oldest parked receipt goes when there are more than the limit; one that is parked already is not parked twice.
-- KEYS: index entry, parked receipts. ARGV: encoded receipt, lifetime while parked in ms, limit, phone number (may be empty).
local to=ARGV[4] or ''
local s=false
if to~='' then s=redis.call('HGET',KEYS[1],to) or redis.call('HGET',KEYS[1],'')
elseif redis.call('HLEN',KEYS[1])==1 then s=redis.call('HVALS',KEYS[1])[1] end
if s then return s end
local p=to..'|'..ARGV[1]
redis.call('LREM',KEYS[2],0,p)
redis.call('RPUSH',KEYS[2],p)
redis.call('LTRIM',KEYS[2],-tonumber(ARGV[3]),-1)
if redis.call('PTTL',KEYS[2])<tonumber(ARGV[2]) then redis.call('PEXPIRE',KEYS[2],ARGV[2]) end
return ''
