-- Marks the index as complete and releases the lock: 1, or 0 when another process holds it or Redis lost it.
-- KEYS: marker, lock. ARGV: owner.
if redis.call('GET',KEYS[2])~=ARGV[1] then return 0 end
redis.call('SET',KEYS[1],ARGV[1])
return redis.call('DEL',KEYS[2])
