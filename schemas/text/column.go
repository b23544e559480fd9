package text

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Names of the merge fields that are columns of a contact. Every other merge field is an attribute.
const (
	FieldPhone     = "phone"
	FieldFirstName = "first_name"
	FieldLastName  = "last_name"
	FieldEmail     = "email"
)

// aliases are the names that address books, spreadsheets and people use for the columns of a contact, without the
// underscores and accents of [FieldName]. If a file has several such columns, the one whose word comes first in the
// list takes precedence.
var aliases = map[string]string{
	// Names that say mobile come first, then the others, then those that are least likely to be the person's own
	// number. Google numbers its columns, Outlook names its; an iPhone's export has the label in the header.
	FieldPhone: `
		e164 msisdn mobile mobilephone mobilenumber mobileno mobilephonenumber phonemobile mobile1 cell cellphone cellnumber cellularphone
		phonecell phoneiphone iphone smartphone gsm sms smsnumber whatsapp whatsappnumber cellulare numerocellulare telefonocellulare
		telefonomobile handy handynummer mobiltelefon mobil mobilnummer mobilfunk portable telephoneportable telmobile telephonemobile movil
		celular telefonomovil telefonocelular telemovel мобильныи мобильныителефон 手机 手机号 手机号码 手機 携帯 携帯電話 휴대폰 휴대전화 جوال
		phone phonenumber phoneno telephone telephonenumber tel telno telefono numerotelefono numeroditelefono telefon telefonnummer
		rufnummer telefone numerodetelephone numerodetelefono τηλεφωνο телефон номертелефона 电话 電話 電話番号 전화 전화번호 هاتف טלפון फोन
		phone1value phone2value phone3value phone4value phone5value phone6value primaryphone mainphone phonemain phone1 phone2 phone3
		homephone homephone2 phonehome otherphone phoneother carphone businessphone businessphone2 workphone phonework companymainphone
		radiophone contactnumber`,
	FieldFirstName: `
		firstname givenname forename fname first nome prenom vorname nombre nombres imie jmeno voornaam fornavn fornamn etunimi ονομα имя
		名 名字 이름 first_name`,
	FieldLastName: `
		lastname surname familyname lname last cognome nachname familienname apellido apellidos nom nomdefamille sobrenome nazwisko prijmeni
		achternaam etternavn efternamn efternavn sukunimi επωνυμο фамилия 姓 성`,
	FieldEmail: `
		email emailaddress mail emailid email1value email2value emailaddress1 indirizzoemail indirizzodipostaelettronica
		indirizzopostaelettronica postaelettronica emailadresse adressemail adresseemail adressedemessagerie courriel correo
		correoelectronico direcciondecorreoelectronico email1 email2address emailpersonal emailhome emailwork 邮箱 メールアドレス`,
}

// unsure are words that may name the phone column if a file has no better one. They are just as often the name of a
// house number or an order number.
const unsure = "contact destination recipient numero number to"

// Unsure is the least rank of the columns that are used only if no other column fits.
const Unsure = 1000

// word is an alias.
type word struct {
	column string
	rank   int
}

var words = func() map[string]word {
	out := map[string]word{}
	for column, list := range aliases {
		for rank, alias := range strings.Fields(list) {
			if _, twice := out[bare(alias)]; !twice {
				out[bare(alias)] = word{column, rank}
			}
		}
	}
	for i, alias := range strings.Fields(unsure) {
		out[alias] = word{FieldPhone, Unsure + i}
	}
	return out
}()

// Column returns the column of a contact that a name means, such as first_name for nome; "" if it means none. The
// column with the lower rank is the more likely one.
func Column(name string) (column string, rank int) {
	w := words[bare(name)]
	return w.column, w.rank
}

// bare removes underscores and accents from a name.
func bare(name string) string {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return strings.Map(func(r rune) rune {
				if r == '_' || unicode.Is(unicode.Mn, r) {
					return -1
				}
				return r
			}, norm.NFD.String(name))
		}
	}
	return name
}
