package audience

// Class says what kind of line a number is. Values are stored: they never change.
type Class uint8

// Classes of numbers.
const (
	Unknown   Class = iota // a number that no plan has assigned
	Mobile                 // mobile, or a plan that does not tell mobile numbers from fixed ones
	FixedLine              // no messages
	Other                  // written before the classes that follow were told apart
	Premium
	Freephone
	SharedCost
	VoIP
	Personal // follows a person from line to line, at a price
	Pager
	UAN // universal access number of a company
	Voicemail
	Satellite // of no country, and of networks on ships and aeroplanes
)

// classes describes each class: how it is called in the API, and in a sentence.
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

// Name is the class in the API, such as fixed_line.
func (c Class) Name() string {
	if int(c) < len(classes) {
		return classes[c].name
	}
	return classes[Other].name
}

// Phrase says the class with a verb, such as "is a fixed line".
func (c Class) Phrase() string {
	if int(c) < len(classes) {
		return classes[c].phrase
	}
	return classes[Other].phrase
}

// TakesText reports whether numbers of the class can get an SMS, an RCS or a WhatsApp message.
func (c Class) TakesText() bool { return c == Mobile }

// TakesCall reports whether numbers of the class may be called: none that cost the tenant or the called more than a call does.
func (c Class) TakesCall() bool {
	return c == Mobile || c == FixedLine || c == VoIP || c == UAN
}
