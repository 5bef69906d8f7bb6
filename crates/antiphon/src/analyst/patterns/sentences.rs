//! Sentences and what the patterns find in them: what they are for, and what must not tempt them. A table.

use super::find;

type Sentence = (&'static str, &'static [(&'static str, &'static str)]);

fn check(table: &[Sentence]) {
    let mut wrong = Vec::new();
    for (text, expected) in table {
        let found: Vec<(&str, &str)> = find(text).into_iter().map(|f| (f.kind, &text[f.range])).collect();
        if found != *expected {
            wrong.push(format!("{text:?}\n   expected {expected:?}\n   found    {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} sentences:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[test]
fn emails_have_a_local_part_and_a_real_domain() {
    check(&[
        ("Write to jane.doe@example.com please.", &[("email", "jane.doe@example.com")]),
        ("my address is Bob+news@mail.example.co.uk, thanks", &[("email", "Bob+news@mail.example.co.uk")]),
        ("(support@antiphon.dev)", &[("email", "support@antiphon.dev")]),
        ("mailto:o'neil@example.org!", &[("email", "o'neil@example.org")]),
        ("a@b.io and c@d.io", &[("email", "a@b.io"), ("email", "c@d.io")]),
        ("it is x_1%y@sub-domain.example.museum.", &[("email", "x_1%y@sub-domain.example.museum")]),
        ("follow @antiphon on the network", &[]),
        ("meet me @ the mall", &[]),
        ("user@localhost is not an address", &[]),
        ("two@signs@example.com", &[]),
        ("dots..twice@example.com", &[]),
        ("ends.@example.com", &[]),
        ("a@-bad.com", &[]),
        ("user@example.c", &[]),
        ("user@123.45", &[]),
        ("old@example.com→new@example.com", &[("email", "old@example.com"), ("email", "new@example.com")]),
        ("jörg@bücher.example schrieb", &[("email", "jörg@bücher.example")]),
        ("宛先はtaro@example.jpです", &[("email", "taro@example.jp")]),
        ("git@github.com:org/repo.git", &[]),
    ]);
}

#[test]
fn urls_have_a_real_host() {
    check(&[
        (
            "See https://example.com/help?topic=refund#top.",
            &[("url", "https://example.com/help?topic=refund#top")],
        ),
        ("go to www.example.org, then log in", &[("url", "www.example.org")]),
        ("(http://example.com/a_(b))", &[("url", "http://example.com/a_(b)")]),
        ("docs at HTTP://EXAMPLE.COM:8080/x", &[("url", "HTTP://EXAMPLE.COM:8080/x")]),
        ("http://127.0.0.1:3000/health is up", &[("url", "http://127.0.0.1:3000/health")]),
        ("http://[::1]:80/ is up", &[("url", "http://[::1]:80/")]),
        ("http://localhost:8080 fails", &[("url", "http://localhost:8080")]),
        ("I bought it on amazon.com yesterday", &[("url", "amazon.com"), ("date", "yesterday")]),
        ("visit shop.example.co.uk/sale now", &[("url", "shop.example.co.uk/sale")]),
        ("https://bücher.example/straße ist da", &[("url", "https://bücher.example/straße")]),
        ("ftp://files.example.net/pub", &[("url", "ftp://files.example.net/pub")]),
        ("https://user:secret@example.com/", &[("url", "https://user:secret@example.com/")]),
        ("http://", &[]),
        ("http://nohost/", &[]),
        ("http://300.1.2.3/", &[]),
        ("http://example.com:99999/", &[]),
        ("e.g. this, i.e. that", &[]),
        ("I opened report.txt and main.rs", &[]),
        ("thanks.it works", &[]),
        ("thanks.it/works either", &[("url", "thanks.it/works")]),
        ("click bit.ly/3xYz now", &[("url", "bit.ly/3xYz")]),
        ("src/main.rs/x and lib.py/y", &[]),
        ("node.js, asp.net and com.example.app", &[]),
    ]);
}

#[test]
fn phones_have_enough_digits_in_known_groups() {
    check(&[
        ("call 555-123-4567 now", &[("phone", "555-123-4567")]),
        ("call me at (555) 123-4567.", &[("phone", "(555) 123-4567")]),
        ("my number is +1 (555) 123-4567", &[("phone", "+1 (555) 123-4567")]),
        ("1-800-555-0199 is toll free", &[("phone", "1-800-555-0199")]),
        ("555.123.4567", &[("phone", "555.123.4567")]),
        ("+44 20 7946 0958 in London", &[("phone", "+44 20 7946 0958")]),
        ("ring 020 7946 0958 today", &[("phone", "020 7946 0958"), ("date", "today")]),
        ("+49 (89) 123456-78", &[("phone", "+49 (89) 123456-78")]),
        ("Their phone number is 01223259988 .", &[("phone", "01223259988")]),
        ("01 23 45 67 89", &[("phone", "01 23 45 67 89")]),
        ("my mobile is 98765 43210", &[("phone", "98765 43210")]),
        ("+919876543210", &[("phone", "+919876543210")]),
        ("text 4155550123", &[("phone", "4155550123")]),
        ("555-0123", &[("phone", "555-0123")]),
        ("dial 555-123-4567 ext. 89", &[("phone", "555-123-4567 ext. 89")]),
        ("1-800-FLOWERS or 1-800-GO-FEDEX", &[("phone", "1-800-FLOWERS"), ("phone", "1-800-GO-FEDEX")]),
        ("1-800 WORDS", &[]),
        ("part number 555-0182", &[]),
        ("spare 555-0182-B", &[]),
        ("call 0180 5 123456", &[("phone", "0180 5 123456")]),
        ("call me maybe", &[]),
        ("call 911", &[("number", "911")]),
        ("version 1.2.3 is out", &[]),
        ("my SSN is 123-45-6789", &[]),
        ("the server 192.168.100.200 is down", &[]),
        ("IBAN DE88 3704 0044 0532 0130 00", &[]),
        ("pay with 4242 4242 4242 4242", &[]),
        ("550e8400-e29b-41d4-a716-446655440000", &[]),
        ("it took 1234567 steps", &[("number", "1234567")]),
        ("at 1718000000 the log stops", &[("number", "1718000000")]),
        ("contact me about invoice 12345678", &[("number", "12345678")]),
        ("reach me at this number: 7946 0958", &[("phone", "7946 0958")]),
        ("+0 12", &[("number", "+0"), ("number", "12")]),
    ]);
}

#[test]
fn money_has_a_currency() {
    check(&[
        ("it costs $5.99", &[("money", "$5.99")]),
        ("5 dollars", &[("money", "5 dollars")]),
        ("EUR 20 or 20 EUR", &[("money", "EUR 20"), ("money", "20 EUR")]),
        ("I paid 1.234,50 € for it", &[("money", "1.234,50 €")]),
        ("£1,200.50 was charged", &[("money", "£1,200.50")]),
        ("a refund of US$ 30", &[("money", "US$ 30")]),
        ("$10k a month", &[("money", "$10k")]),
        ("€3.5 million", &[("money", "€3.5 million")]),
        ("The price is $16 dollars per person", &[("money", "$16 dollars")]),
        ("twenty bucks", &[("money", "twenty bucks")]),
        ("one hundred and fifty dollars", &[("money", "one hundred and fifty dollars")]),
        ("just 50 cents", &[("money", "50 cents")]),
        ("a 5-dollar bill", &[("money", "5-dollar")]),
        ("₹499 only", &[("money", "₹499")]),
        ("between $5 and $10.", &[("money", "$5"), ("money", "$10")]),
        ("5 pounds of apples", &[("number", "5")]),
        ("5 pounds please", &[("money", "5 pounds")]),
        ("it makes cents to me", &[]),
        ("the dollar fell", &[]),
        ("use $variable and $5x", &[]),
        ("a few euros", &[]),
        ("$5-10 or 10 to 20 euros", &[("money", "$5-10"), ("money", "10 to 20 euros")]),
        ("$5-$10", &[("money", "$5"), ("money", "$10")]),
        ("45 dollars and 20 cents", &[("money", "45 dollars and 20 cents")]),
        ("forty dollars and five cents", &[("money", "forty dollars and five cents")]),
        ("50p for a 720p film", &[("money", "50p")]),
        ("99¢", &[("money", "99¢")]),
        ("Rs. 1,500 or kr 600", &[("money", "Rs. 1,500"), ("money", "kr 600")]),
        ("a tenner or two grand", &[("money", "a tenner"), ("money", "two grand")]),
        ("a grand piano, two grand pianos", &[]),
        ("it weighs 5 pounds", &[("number", "5")]),
        ("how many kilos are in 20 pounds", &[("number", "20")]),
        ("a five hundred pound withdrawal", &[("money", "five hundred pound")]),
        ("half a million pounds", &[("money", "half a million pounds")]),
        ("5 pounds 50p", &[("money", "5 pounds 50p")]),
        ("a p in a dollar value", &[]),
        ("a 50 pound dumbbell", &[("number", "50")]),
        ("4711/€15", &[("number", "4711"), ("money", "€15")]),
        ("1.2.3 $", &[]),
    ]);
}

#[test]
fn dates_exist() {
    check(&[
        ("on 2026-03-01", &[("date", "2026-03-01")]),
        ("on 2026-02-30", &[]),
        ("2024-02-29 was a leap day", &[("date", "2024-02-29")]),
        ("2025/12/31", &[("date", "2025/12/31")]),
        ("due 03/14/2026", &[("date", "03/14/2026")]),
        ("am 14.03.2026", &[("date", "14.03.2026")]),
        ("since 1/2/24", &[("date", "1/2/24")]),
        ("31/31/2026", &[]),
        ("13-13-2026", &[]),
        ("on 3/14 we met", &[("date", "3/14")]),
        ("3/4 cup of sugar", &[("number", "3/4")]),
        ("it expires 09/27", &[("date", "09/27")]),
        ("valid until 6/2026", &[("date", "6/2026")]),
        ("page 09/27", &[("number", "09/27")]),
        ("sort code 20-11-43", &[]),
        ("open 24/7", &[("number", "24/7")]),
        ("on 3/4 of the days", &[("number", "3/4")]),
        ("March 3rd, 2026", &[("date", "March 3rd, 2026")]),
        ("the 1st of April", &[("date", "1st of April")]),
        ("Mon, 3 March 2025", &[("date", "Mon, 3 March 2025")]),
        ("4 July 2025", &[("date", "4 July 2025")]),
        ("Dec. 25 is free", &[("date", "Dec. 25")]),
        ("31 April", &[("number", "31")]),
        ("30 February 2026", &[("number", "30"), ("number", "2026")]),
        ("February 29", &[("date", "February 29")]),
        ("February 29, 2025", &[("number", "29"), ("number", "2025")]),
        ("in January 2026", &[("date", "January 2026")]),
        ("in September", &[("date", "September")]),
        ("since 2019", &[("date", "2019")]),
        ("since May, until may, mid-June", &[("date", "May"), ("date", "may"), ("date", "June")]),
        ("the October bill", &[("date", "October")]),
        ("from 1998 to 2004", &[("date", "1998"), ("date", "2004")]),
        ("in Feb and Apr", &[("date", "Feb"), ("date", "Apr")]),
        ("12-14 March, May 3-5", &[("date", "12-14 March"), ("date", "May 3-5")]),
        ("on the 5th, the 1st of this month", &[("date", "5th"), ("date", "1st of this month")]),
        ("Saturday the 14th", &[("date", "Saturday the 14th")]),
        ("on the 5th floor for the 2nd time", &[]),
        ("Mon-Fri", &[("date", "Mon"), ("date", "Fri")]),
        ("came on Tue, due by thu", &[("date", "Tue"), ("date", "thu")]),
        ("the cat sat on the sun lounger", &[]),
        ("open on Sundays", &[("date", "Sundays")]),
        ("a Black Friday deal", &[]),
        ("last night and this morning", &[("date", "last night"), ("date", "this morning")]),
        ("two days from now", &[("date", "two days from now")]),
        ("in a day or two, in ten years of trade", &[]),
        ("$20 may be enough", &[("money", "$20")]),
        ("version 2019", &[("number", "2019")]),
        ("tomorrow at 5pm", &[("date", "tomorrow"), ("time", "5pm")]),
        ("next Friday or this week", &[("date", "next Friday"), ("date", "this week")]),
        ("the day after tomorrow", &[("date", "day after tomorrow")]),
        ("I ordered it 3 days ago", &[("date", "3 days ago")]),
        ("it arrives in two weeks", &[("date", "in two weeks")]),
        ("see you Monday", &[("date", "Monday")]),
        ("May I march with April?", &[]),
        ("you may 10 times try", &[("number", "10")]),
        ("version 1.2.3", &[]),
        ("release 1.2.34 of 2026", &[("number", "2026")]),
        ("today's offer", &[("date", "today")]),
    ]);
}

#[test]
fn times_are_in_range() {
    check(&[
        ("10 o'clock", &[("time", "10 o'clock")]),
        ("at five o’clock", &[("time", "five o’clock")]),
        ("17:30 sharp", &[("time", "17:30")]),
        ("at 5:45 p.m.", &[("time", "5:45 p.m.")]),
        ("9 AM EST", &[("time", "9 AM EST")]),
        ("2026-01-01T10:00:00Z", &[("date", "2026-01-01"), ("time", "10:00:00Z")]),
        ("2026-01-01 23:59:59.123+02:00", &[("date", "2026-01-01"), ("time", "23:59:59.123+02:00")]),
        ("half past six", &[("time", "half past six")]),
        ("quarter to 7", &[("time", "quarter to 7")]),
        ("a quarter past two", &[("time", "quarter past two")]),
        ("9am-5pm", &[("time", "9am"), ("time", "5pm")]),
        ("9-11am", &[("time", "9-11am")]),
        ("8:00–12:30", &[("time", "8:00"), ("time", "12:30")]),
        ("tomorrow at 10", &[("date", "tomorrow"), ("time", "10")]),
        ("at 9 on Monday", &[("time", "9"), ("date", "Monday")]),
        ("at 9 in the morning", &[("time", "9")]),
        ("today at 5 shops", &[("date", "today"), ("number", "5")]),
        ("at 5% today", &[("number", "5%"), ("date", "today")]),
        ("mix it 1:10, John 3:16, at 2:15 in the video", &[]),
        ("at noon", &[("time", "noon")]),
        ("25:00", &[]),
        ("12:60", &[]),
        ("13pm", &[]),
        ("a 16:9 screen", &[]),
        ("24 o'clock", &[("number", "24")]),
        ("I am 5 and a half", &[("number", "5")]),
        ("spam 3 ample", &[("number", "3")]),
    ]);
}

#[test]
fn order_ids_need_a_cue() {
    check(&[
        ("Where is order 4711?", &[("order_id", "4711")]),
        ("order #4711 is late", &[("order_id", "4711")]),
        ("My parcel #A-10023 is lost", &[("order_id", "A-10023")]),
        ("#A-10023", &[("order_id", "A-10023")]),
        ("how can I cancel purchase 113542617735902?", &[("order_id", "113542617735902")]),
        ("cancel order 00004587345", &[("order_id", "00004587345")]),
        ("my order number is AB-1234.", &[("order_id", "AB-1234")]),
        ("order no. 42", &[("order_id", "42")]),
        ("order id: 98-7654", &[("order_id", "98-7654")]),
        ("ORDER NUMBER 12345", &[("order_id", "12345")]),
        ("tracking number 1Z999AA10123456784", &[("order_id", "1Z999AA10123456784")]),
        ("it is 1Z999AA10123456784", &[("order_id", "1Z999AA10123456784")]),
        ("tracking 9400 1000 0000 0000 0000 00", &[("order_id", "9400 1000 0000 0000 0000 00")]),
        ("orders 4711, 4712 and 4713", &[("order_id", "4711"), ("order_id", "4712"), ("order_id", "4713")]),
        ("Your reference number is YF86GE4J", &[("order_id", "YF86GE4J")]),
        (
            "order 4711 for $20 on 2026-03-01",
            &[("order_id", "4711"), ("money", "$20"), ("date", "2026-03-01")],
        ),
        ("in order to", &[]),
        ("I want to order 2 pizzas", &[("number", "2")]),
        ("we order 5000 boxes a year", &[("number", "5000")]),
        ("we’d order 1500 a month", &[("number", "1500")]),
        ("I want to order 4711", &[("number", "4711")]),
        ("they will purchase 1000 copies", &[("number", "1000")]),
        ("changes to order 4711", &[("order_id", "4711")]),
        ("will order 4711 arrive", &[("order_id", "4711")]),
        ("112-7745510-0098231", &[("order_id", "112-7745510-0098231")]),
        ("PO 4500018823", &[("order_id", "4500018823")]),
        ("order nº 3391", &[("order_id", "3391")]),
        ("my booking code is HXQDRT", &[("order_id", "HXQDRT")]),
        ("MY BOOKING CODE IS PLEASE", &[]),
        ("order 4711/€15", &[("order_id", "4711"), ("money", "€15")]),
        ("my delivery 2026-03-01", &[("date", "2026-03-01")]),
        ("a package with iPhone14 and package iPhone14", &[]),
        ("order 10kg of rice", &[]),
        ("delivery 5pm", &[("time", "5pm")]),
        ("law and order", &[]),
        ("preorder 4711", &[("number", "4711")]),
        ("invoice #12588", &[("number", "12588")]),
        ("we are #1", &[("number", "1")]),
        ("#blessed #covid19", &[]),
        ("delivery on 2026-03-01", &[("date", "2026-03-01")]),
        ("order 25.50 euros", &[("money", "25.50 euros")]),
    ]);
}

#[test]
fn the_plain_word_account_counts_where_no_number_is_given() {
    check(&[
        ("Hello, I need help with my account", &[("account", "account")]),
        ("ACCOUNT locked", &[("account", "ACCOUNT")]),
        ("account 12345678", &[("account", "12345678")]),
        ("acct no. 123-456", &[("account", "123-456")]),
        ("my account number is 9876543", &[("account", "9876543")]),
        ("account #1234 and card ending in 4242", &[("account", "1234"), ("card_last4", "4242")]),
        ("the account ending in 4242", &[("account", "4242")]),
        ("both accounts are closed", &[("account", "accounts")]),
        ("IBAN DE89 3704 0044 0532 0130 00 is mine", &[("account", "DE89 3704 0044 0532 0130 00")]),
        ("GB82WEST12345698765432", &[("account", "GB82WEST12345698765432")]),
        ("I need an account for my son", &[("account", "account")]),
        ("on account of the rain", &[]),
        ("take that into account", &[]),
        ("two accounts for work", &[("account", "accounts")]),
        ("can you account for it", &[]),
        ("it doesn't account for it", &[]),
        ("an account of what happened", &[]),
        ("our account manager", &[]),
        ("account settings", &[("account", "account")]),
        ("GET /account/settings", &[]),
        ("set account_id", &[]),
        ("my account (number 4471209)", &[("account", "4471209")]),
        ("AC#85731890", &[("account", "85731890")]),
        ("customer number C-880912", &[("account", "C-880912")]),
        ("the customer 4410982 of ours", &[("number", "4410982")]),
        ("account 55120034 3 days ago", &[("account", "55120034"), ("date", "3 days ago")]),
        ("GB82 WEST 1234 5698 7654 32 from me", &[("account", "GB82 WEST 1234 5698 7654 32")]),
        ("that accounts for the delay", &[]),
        ("by all accounts", &[]),
        ("accounting is unaccountable", &[]),
        ("account 2 is new", &[("account", "account"), ("number", "2")]),
        ("is there money on account 55554444", &[("account", "55554444")]),
    ]);
}

#[test]
fn last_digits_need_a_card() {
    check(&[
        ("card ending in 4242", &[("card_last4", "4242")]),
        ("my Visa ends with 4242.", &[("card_last4", "4242")]),
        ("my card ending 4242", &[("card_last4", "4242")]),
        (
            "cards ending 1111 and 2222, not 3333",
            &[("card_last4", "1111"), ("card_last4", "2222"), ("card_last4", "3333")],
        ),
        ("last four 4242", &[("card_last4", "4242")]),
        ("the last 4 digits of my card are 4242", &[("number", "4"), ("card_last4", "4242")]),
        ("•••• 4242", &[("card_last4", "4242")]),
        ("**** **** **** 4242 was charged", &[("card_last4", "4242")]),
        ("xxxx-4242", &[("card_last4", "4242")]),
        ("credit card 4242 expired", &[("card_last4", "4242")]),
        ("my phone ends with 4242", &[("number", "4242")]),
        ("the year ending in 2025", &[("date", "2025")]),
        ("last four of my social 1234", &[("number", "1234")]),
        ("card ending in 42421", &[("number", "42421")]),
        ("the last four days", &[]),
    ]);
}

#[test]
fn numbers_are_what_remains() {
    check(&[
        ("2 pizzas and 3.5 litres", &[("number", "2"), ("number", "3.5")]),
        ("1,234,567 people", &[("number", "1,234,567")]),
        ("-12 degrees", &[("number", "-12")]),
        ("50% off", &[("number", "50%")]),
        ("a 3D film on 4K in the 21st century", &[]),
        ("covid-19 and F-16", &[]),
        ("one or two", &[]),
        ("x_1 and 5x", &[]),
        ("", &[]),
        ("   ", &[]),
        ("é5 and 7é", &[]),
        ("٣ apples", &[]),
    ]);
}
