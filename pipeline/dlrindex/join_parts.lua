-- Notes the state of one part of a long message and returns how many parts are delivered, and how many of these are read.
-- KEYS: parts of the message. ARGV: part (1 and up), its state, lifetime in ms.
local was=tonumber(redis.call('HGET',KEYS[1],ARGV[1]) or '0')
if tonumber(ARGV[2])>was then redis.call('HSET',KEYS[1],ARGV[1],ARGV[2]) end
redis.call('PEXPIRE',KEYS[1],ARGV[3])
local delivered,read=0,0
for _,v in ipairs(redis.call('HVALS',KEYS[1])) do
  delivered=delivered+1
  if v=='2' then read=read+1 end
end
return {delivered,read}
