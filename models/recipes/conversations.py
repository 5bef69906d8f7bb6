"""Twenty conversations, for the card: nothing is trained on them."""

FIRST = "Hello, I need help with my account"
# The customer's turns, each with the intent and sentiment of its analysis, or None for an answer without one.
ACCOUNT = (FIRST, "help_request", "neutral")
CONVERSATIONS = [
    [(FIRST, None, None)],
    [ACCOUNT, ("I forgot my password", "recover_password", "neutral"), ("I did not get the email", "recover_password", "negative"), ("thanks!", "thank_you", "positive")],
    [("hi there", "greeting", "neutral"), ("Where is order 4711?", "track_order", "neutral"), ("It's late", "track_order", "negative")],
    [("Where is order 4711?", None, None), ("How long does that take?", None, None)],
    [("I want my money back!", "get_refund", "negative"), ("The item is damaged", "get_refund", "negative")],
    [("cancel my subscription to the newsletter", "newsletter_subscription", "neutral")],
    [("I want to talk to a human", "contact_human_agent", "neutral")],
    [("I need help with cancelling order 90210", "cancel_order", "neutral"), ("Will I get my money back?", "get_refund", "neutral"), ("thank you so much", "thank_you", "positive")],
    [("how can I switch to the Pro account?", "switch_account", "neutral")],
    [("You charged me twice, this is a joke!", "payment_issue", "negative")],
    [("I'd like to order two chairs", "place_order", "neutral"), ("Which ways to pay do you accept?", "check_payment_methods", "neutral")],
    [("can I get the invoice from last month?", "get_invoice", "neutral"), ("I don't know the number.", "get_invoice", "neutral")],
    [("how long does delivery to Berlin take", "delivery_period", "neutral"), ("Can it be faster?", "delivery_options", "neutral")],
    [("I moved, please change my shipping address", "change_shipping_address", "neutral")],
    [("who won the world cup in 1998", "out_of_scope", "neutral")],
    [("What will the weather be like tomorrow?", "weather", "neutral"), ("ok, then help me with my bill", "check_invoice", "neutral")],
    [("are you human?", "are_you_a_bot", "neutral"), ("tell me a joke", "tell_joke", "neutral"), ("bye", "goodbye", "neutral")],
    [("My laptop is very slow", None, None)],
    [("Tell me about your favourite movie", None, None), ("I liked the actors most", None, None)],
    [("I would like to book a table for two tonight", None, None)],
]  # fmt: skip
