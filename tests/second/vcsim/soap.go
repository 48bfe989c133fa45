package main

import (
	"net/http"
	"reflect"

	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

type envelope struct {
	XMLName  xml.Name    `xml:"soapenv:Envelope"`
	Envelope string      `xml:"xmlns:soapenv,attr"`
	Schema   string      `xml:"xmlns:xsd,attr"`
	Instance string      `xml:"xmlns:xsi,attr"`
	Body     interface{} `xml:"soapenv:Body"`
}

type faultBody struct {
	Fault struct {
		Code   string `xml:"faultcode"`
		String string `xml:"faultstring"`
		Detail struct {
			Fault detail
		} `xml:"detail"`
	} `xml:"soapenv:Fault"`
}

// detail is a fault under the element's name that it has on the wire: SnapshotFault is <SnapshotFaultFault>.
type detail struct{ fault types.BaseMethodFault }

// MarshalXML names the element, and the type.
func (d detail) MarshalXML(encoder *xml.Encoder, start xml.StartElement) error {
	name := reflect.TypeOf(d.fault).Elem().Name()
	start.Name.Local = name + "Fault"
	start.Attr = []xml.Attr{
		{Name: xml.Name{Local: "xmlns"}, Value: "urn:vim25"},
		{Name: xml.Name{Local: "xsi:type"}, Value: name},
	}
	return encoder.EncodeElement(d.fault, start)
}

func send(w http.ResponseWriter, status int, body interface{}) {
	data, err := xml.Marshal(&envelope{
		Envelope: "http://schemas.xmlsoap.org/soap/envelope/",
		Schema:   "http://www.w3.org/2001/XMLSchema",
		Instance: "http://www.w3.org/2001/XMLSchema-instance",
		Body:     body,
	})
	if err != nil {
		panic(err)
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(xml.Header))
	_, _ = w.Write(data)
}

func sendFault(w http.ResponseWriter, text string, fault types.BaseMethodFault) {
	body := new(faultBody)
	body.Fault.Code = "ServerFaultCode"
	body.Fault.String = text
	body.Fault.Detail.Fault = detail{fault}
	send(w, http.StatusInternalServerError, body)
}
