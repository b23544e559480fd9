package audience

// Class says what kind of line a number is. Values are stored: they never change.
type Class uint8

// Classes of numbers.
const (
	Unknown   Class = iota // a number that no plan has assigned
	Mobile                 // mobile, or in a plan that does not distinguish mobile from fixed numbers
	FixedLine              // cannot receive messages
	Other                  // stored by versions without the following classes
	Premium
	Freephone
	SharedCost
	VoIP
	Personal // a number that follows a person from line to line, with extra charges
	Pager
	UAN // universal access number of a company
	Voicemail
	Satellite // satellite networks, and networks of ships and aeroplanes
)

// classes has the name of each class in the API, and a phrase for sentences.
var classes = [...]struct{ name, phrase string }{
	Unknown:    {"unknown", "is not assigned in the numbering plan of its country"},
	Mobile:     {"mobile", "is a mobile number"},
	FixedLine:  {"fixed_line", "is a fixed line"},
	Other:      {"other", "is neither a mobile number nor a fixed line"},
	Premium:    {"premium_rate", "is a premium-rate number"},
	Freephone:  {"freephone", "is a freephone number"},
	SharedCost: {"shared_cost", "is a shared-cost number"},
	VoIP:       {"voip", "is a VoIP number"},
	Personal:   {"personal", "is a personal number"},
	Pager:      {"pager", "is a pager"},
	UAN:        {"uan", "is a company's access number"},
	Voicemail:  {"voicemail", "is a voicemail number"},
	Satellite:  {"satellite", "is a satellite number, or one of another network of no country"},
}

// ClassNames returns the names of all classes, in order.
func ClassNames() []string {
	out := make([]string, len(classes))
	for i := range classes {
		out[i] = classes[i].name
	}
	return out
}

// Name returns the name of the class in the API, such as fixed_line.
func (c Class) Name() string {
	if int(c) < len(classes) {
		return classes[c].name
	}
	return classes[Other].name
}

// Phrase returns the class as a phrase with a verb, such as "is a fixed line".
func (c Class) Phrase() string {
	if int(c) < len(classes) {
		return classes[c].phrase
	}
	return classes[Other].phrase
}

// TakesText reports whether numbers of the class can get an SMS, an RCS or a WhatsApp message.
func (c Class) TakesText() bool { return c == Mobile }

// TakesCall reports whether numbers of the class may be called. Classes with extra charges for the tenant or the person
// called may not.
func (c Class) TakesCall() bool {
	return c == Mobile || c == FixedLine || c == VoIP || c == UAN
}
