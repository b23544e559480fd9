-- Notes the last message of a sender to a number, unless a later one is noted. Times have 13 digits, so they compare as text.
-- KEYS: the number. ARGV: tenant and sender, time, message, lifetime in ms.
local old=redis.call('HGET',KEYS[1],ARGV[1])
if not old or string.sub(old,1,13)<=ARGV[2] then redis.call('HSET',KEYS[1],ARGV[1],ARGV[2]..'/'..ARGV[3]) end
if redis.call('PTTL',KEYS[1])<tonumber(ARGV[4]) then redis.call('PEXPIRE',KEYS[1],ARGV[4]) end
return 1
