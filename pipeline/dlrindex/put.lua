-- The sender's side: notes whose provider id this is, and returns the encoded receipts that were parked for it, oldest first.
-- They stay parked until clear.lua runs, after they were published again, so that a sender that dies in between loses none.
-- KEYS: index entry, parked receipts. ARGV: submission (16 bytes, and 2 of a part), lifetime of the entry in ms, phone number (may be empty).
local to=ARGV[3] or ''
redis.call('HSET',KEYS[1],to,ARGV[1])
if redis.call('PTTL',KEYS[1])<tonumber(ARGV[2]) then redis.call('PEXPIRE',KEYS[1],ARGV[2]) end
local one=redis.call('HLEN',KEYS[1])==1
local out={}
for _,p in ipairs(redis.call('LRANGE',KEYS[2],0,-1)) do
  local bar=string.find(p,'|',1,true)
  local whose=string.sub(p,1,bar-1)
  if whose==to or to=='' or (whose=='' and one) then out[#out+1]=string.sub(p,bar+1) end
end
return out
