-- Deletes the receipts that put.lua returned, after they were published again. Once the submission is known nothing new is
-- parked for it.
-- KEYS: index entry, parked receipts. ARGV: phone number (may be empty).
local to=ARGV[1] or ''
if to=='' then return redis.call('DEL',KEYS[2]) end
local one=redis.call('HLEN',KEYS[1])==1
local n=0
for _,p in ipairs(redis.call('LRANGE',KEYS[2],0,-1)) do
  local whose=string.sub(p,1,string.find(p,'|',1,true)-1)
  if whose==to or (whose=='' and one) then n=n+redis.call('LREM',KEYS[2],1,p) end
end
return n
