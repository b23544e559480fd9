package schemas

import "time"

// OptOutFact is one thing that a recipient did about what he is sent.
type OptOutFact struct {
	// ID is the same for the same fact. What was recorded once is not recorded again, whatever has happened since.
	ID     string
	Tenant string
	// Phone is his number, E.164 with +.
	Phone string
	// Channel that he opts out of; unspecified: all.
	Channel Channel
	// Source is the way: link or keyword. By is what it answers: the id of a message, if it is known. Text is what he
	// wrote.
	Source, By, Text string
	Time             time.Time
}
