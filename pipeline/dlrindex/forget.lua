-- Lets the entry of a submission expire after its last receipt. The remaining lifetime is for receipts that come twice or late.
-- An entry that shares its provider id with others is deleted at once: such a key lives on with each new message and would
-- grow without end.
-- KEYS: index entry, parked receipts. ARGV: submission, phone number, remaining lifetime in ms.
local n=0
for _,f in ipairs({ARGV[2],''}) do
  if redis.call('HGET',KEYS[1],f)==ARGV[1] then
    if redis.call('HLEN',KEYS[1])>1 then redis.call('HDEL',KEYS[1],f)
    elseif redis.call('PTTL',KEYS[1])>tonumber(ARGV[3]) then redis.call('PEXPIRE',KEYS[1],ARGV[3]) end
    n=n+1
  end
end
return n
